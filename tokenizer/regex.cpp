#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <array>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 64 * 1024;
constexpr uint32_t kMatchLimit = 20'000'000;   // backtracks of one match
constexpr uint32_t kHeapLimitKib = 64 * 1024;  // of the interpreter, where there is no JIT

// PCRE2's \s has U+180E, which has not been white space since Unicode 6.3; Oniguruma's has not.
constexpr std::string_view kSpaces =
    R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Spells out \s and \S by White_Space. \S inside a class has no such spelling and is left alone.
std::string with_unicode_spaces(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += in_class ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
    } else if (escaped == 'S' && !in_class) {
      out += "[^" + std::string(kSpaces) + "]";
    } else {
      out += c;
      out += escaped;
    }
  }
  return out;
}

std::string message_of(int error_code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error_code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};

}  // namespace

struct Regex::Code {
  std::string pattern;  // as given, for messages
  std::unique_ptr<pcre2_code, Freed<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>> context;
};

Regex::Regex(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes || !is_valid_utf8(pattern)) {
    throw Error("a pattern of the tokenizer is not UTF-8 or longer than 64 KiB");
  }
  const std::string spelled = with_unicode_spaces(pattern);
  auto compiled = std::make_shared<Code>();
  compiled->pattern = pattern;
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
                                     &offset, nullptr));
  if (!compiled->code) {
    throw Error("pattern '" + compiled->pattern + "' of the tokenizer: " + message_of(error));
  }
  // Where there is no JIT the interpreter gives the same matches.
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);
  compiled->context.reset(pcre2_match_context_create(nullptr));
  if (!compiled->context) throw std::bad_alloc();
  pcre2_set_match_limit(compiled->context.get(), kMatchLimit);
  pcre2_set_heap_limit(compiled->context.get(), kHeapLimitKib);
  code_ = std::move(compiled);
}

struct Regex::Search::State {
  const Code& code;
  std::string_view text;
  size_t position = 0;
  std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>> data;
};

Regex::Search::Search(const Regex& regex, std::string_view text)
    : state_(new State{*regex.code_, text, 0, {}}) {
  state_->data.reset(pcre2_match_data_create(1, nullptr));
  if (!state_->data) throw std::bad_alloc();
}

Regex::Search::~Search() = default;

bool Regex::Search::next(Match& match) {
  State& s = *state_;
  if (s.position >= s.text.size()) return false;
  // Valid UTF-8 was promised; checking it again in every call would take quadratic time.
  const auto match_with = [&](uint32_t options) {
    return pcre2_match(s.code.code.get(), reinterpret_cast<PCRE2_SPTR>(s.text.data()),
                       s.text.size(), s.position, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options,
                       s.data.get(), s.code.context.get());
  };
  int found = match_with(0);
  // The interpreter keeps its state on the heap and has room for more of it.
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match_with(PCRE2_NO_JIT);
  if (found == PCRE2_ERROR_NOMATCH) {
    s.position = s.text.size();
    return false;
  }
  if (found < 0) {
    throw Error("pattern '" + s.code.pattern + "' of the tokenizer: " + message_of(found));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(s.data.get());
  match = {bounds[0], bounds[1]};
  s.position = match.end;
  return true;
}

}  // namespace flexllm::tokenizer
