#include "tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>

#include "tokenizer/chat_template.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

using Kind = Lexeme::Kind;

constexpr std::array<std::string_view, 26> kSymbols = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

// Newlines as "\n", without the one that ends the template.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

size_t skip_space(std::string_view text, size_t position) {
  while (position < text.size()) {
    size_t next = position;
    if (!is_space(read_code_point(text, next))) break;
    position = next;
  }
  return position;
}

std::string_view without_trailing_space(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    if (!is_space(read_code_point(text, at))) end = at;
  }
  return text.substr(0, end);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalized(source)), view_(text_) {}

  std::vector<Lexeme> run() {
    while (position_ < view_.size()) {
      const size_t tag = next_tag();
      data(tag);
      if (tag == view_.size()) break;
      switch (view_[tag + 1]) {
        case '#':
          comment();
          break;
        case '{':
          expression(Kind::print_begin, Kind::print_end, "}}");
          break;
        default:
          if (!raw()) expression(Kind::block_begin, Kind::block_end, "%}");
      }
    }
    add(Kind::end, "");
    return std::move(lexemes_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw TemplateError(TemplateError::Kind::syntax, line_, what);
  }

  void add(Kind kind, std::string text) { lexemes_.push_back({kind, line_, std::move(text)}); }

  void move_to(size_t position) {
    line_ += static_cast<size_t>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(position_),
                                            text_.begin() + static_cast<std::ptrdiff_t>(position),
                                            '\n'));
    position_ = position;
  }

  size_t next_tag() const {
    for (size_t at = view_.find('{', position_); at != std::string_view::npos;
         at = view_.find('{', at + 1)) {
      if (at + 1 < view_.size() &&
          std::string_view("{%#").find(view_[at + 1]) != std::string::npos) {
        return at;
      }
    }
    return view_.size();
  }

  // The sign of white space control right after an opening "{%"; "" if there is none.
  std::string_view sign_at(size_t position) const {
    const bool present =
        position < view_.size() && (view_[position] == '-' || view_[position] == '+');
    return view_.substr(position, present ? 1 : 0);
  }

  // The text up to the tag at `tag`, without the white space that the tag takes away.
  std::string_view stripped_before(size_t from, size_t tag, bool line_starting) const {
    const std::string_view text = view_.substr(from, tag - from);
    if (tag == view_.size()) return text;
    const std::string_view sign = sign_at(tag + 2);
    if (sign == "-") return without_trailing_space(text);
    if (sign == "+" || view_[tag + 1] == '{') return text;
    const size_t newline = text.rfind('\n');
    const size_t last_line = newline == std::string_view::npos ? 0 : newline + 1;
    const bool only_space = skip_space(text, last_line) == text.size();
    return only_space && (last_line > 0 || line_starting) ? text.substr(0, last_line) : text;
  }

  void data(size_t tag) {
    const std::string_view text = stripped_before(position_, tag, line_starting_);
    if (!text.empty()) add(Kind::data, std::string(text));
    move_to(tag);
    line_starting_ = false;
  }

  // If a closing tag stands at `position`, the position after it and after the white space that it
  // takes away: "-%}" takes all, "%}" one newline, "+%}" and "}}" none.
  std::optional<size_t> after_closing(size_t position, std::string_view closing) const {
    const bool print = closing == "}}";
    const std::string_view rest = view_.substr(position);
    if (rest.starts_with('-') && rest.substr(1).starts_with(closing)) {
      return skip_space(view_, position + 3);
    }
    if (!print && rest.starts_with('+') && rest.substr(1).starts_with(closing)) return position + 3;
    if (!rest.starts_with(closing)) return std::nullopt;
    const bool newline = !print && rest.substr(2).starts_with('\n');
    return position + (newline ? 3 : 2);
  }

  void close(size_t after) {
    line_starting_ = view_[after - 1] == '\n';
    move_to(after);
  }

  void comment() {
    const size_t start = position_ + 2;
    size_t end = view_.find("#}", start);
    if (end == std::string_view::npos) fail("a comment is not closed");
    if (end > start && (view_[end - 1] == '-' || view_[end - 1] == '+')) --end;
    close(*after_closing(end, "#}"));
  }

  // Where the block "{% NAME %}" that starts at `position` has its name; nothing for other blocks.
  std::optional<size_t> after_block_name(size_t position, std::string_view name) const {
    size_t at = position + 2;
    at = skip_space(view_, at + sign_at(at).size());
    if (!view_.substr(at).starts_with(name)) return std::nullopt;
    return skip_space(view_, at + name.size());
  }

  // {% raw %}: its text up to {% endraw %} as it stands. False when another block stands here.
  bool raw() {
    const auto name = after_block_name(position_, "raw");
    if (!name) return false;
    size_t begin;
    if (view_.substr(*name).starts_with("-%}")) {
      begin = skip_space(view_, *name + 3);
    } else if (view_.substr(*name).starts_with("%}")) {
      begin = *name + 2;
    } else {
      return false;
    }
    const bool line_starting = view_[begin - 1] == '\n';
    for (size_t tag = view_.find("{%", begin); tag != std::string_view::npos;
         tag = view_.find("{%", tag + 1)) {
      const auto end_name = after_block_name(tag, "endraw");
      const auto after = end_name ? after_closing(*end_name, "%}") : std::nullopt;
      if (!after) continue;
      const std::string_view text = stripped_before(begin, tag, line_starting);
      if (!text.empty()) add(Kind::data, std::string(text));
      close(*after);
      return true;
    }
    fail("raw is not closed by endraw");
  }

  void expression(Kind begin, Kind end, std::string_view closing) {
    add(begin, "");
    move_to(position_ + 2 + sign_at(position_ + 2).size());
    std::string open;  // closing brackets that are due
    for (;;) {
      move_to(skip_space(view_, position_));
      if (position_ == view_.size()) fail("a tag is not closed by '" + std::string(closing) + "'");
      if (open.empty()) {
        if (const auto after = after_closing(position_, closing)) {
          add(end, "");
          close(*after);
          return;
        }
      }
      lexeme(open);
    }
  }

  void lexeme(std::string& open) {
    const char c = view_[position_];
    if (is_digit(c)) {
      number();
    } else if (is_name_start(c)) {
      size_t end = position_;
      while (end < view_.size() && is_name_part(view_[end])) ++end;
      add(Kind::name, std::string(view_.substr(position_, end - position_)));
      move_to(end);
    } else if (c == '\'' || c == '"') {
      string();
    } else {
      symbol(open);
    }
  }

  size_t after_digits(size_t at) const {
    while (at < view_.size() &&
           (is_digit(view_[at]) ||
            (view_[at] == '_' && at + 1 < view_.size() && is_digit(view_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void number() {
    const bool after_dot = position_ > 0 && view_[position_ - 1] == '.';
    size_t end = after_digits(position_);
    Kind kind = Kind::integer;
    const auto digit_at = [&](size_t at) { return at < view_.size() && is_digit(view_[at]); };
    if (!after_dot && end < view_.size() && view_[end] == '.' && digit_at(end + 1)) {
      kind = Kind::floating;
      end = after_digits(end + 1);
    }
    if (!after_dot && end < view_.size() && (view_[end] == 'e' || view_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < view_.size() && (view_[exponent] == '+' || view_[exponent] == '-')) ++exponent;
      if (digit_at(exponent)) {
        kind = Kind::floating;
        end = after_digits(exponent);
      }
    }
    std::string digits(view_.substr(position_, end - position_));
    std::erase(digits, '_');
    add(kind, std::move(digits));
    move_to(end);
  }

  void symbol(std::string& open) {
    const auto found = std::find_if(kSymbols.begin(), kSymbols.end(), [&](std::string_view symbol) {
      return view_.substr(position_).starts_with(symbol);
    });
    if (found == kSymbols.end()) {
      fail("unexpected character '" + std::string(1, view_[position_]) + "'");
    }
    const char c = found->front();
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) fail("unexpected '" + std::string(1, c) + "'");
      open.pop_back();
    }
    add(Kind::symbol, std::string(*found));
    move_to(position_ + found->size());
  }

  void string() {
    const char quote = view_[position_];
    size_t end = position_ + 1;
    while (end < view_.size() && view_[end] != quote) end += view_[end] == '\\' ? 2 : 1;
    if (end >= view_.size()) fail("a string is not closed");
    add(Kind::string, unescaped(view_.substr(position_ + 1, end - position_ - 1)));
    move_to(end + 1);
  }

  // Escapes of a Python string; an unknown one stays as it is.
  std::string unescaped(std::string_view raw_text) const {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (size_t i = 0; i < raw_text.size(); ++i) {
      if (raw_text[i] != '\\') {
        out += raw_text[i];
        continue;
      }
      const char c = raw_text[++i];
      if (const size_t named = kNames.find(c); named != std::string_view::npos) {
        out += kValues[named];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        out += code_point(raw_text.substr(i + 1), digits, 16);
        i += digits;
      } else if (c >= '0' && c <= '7') {
        size_t digits = 1;
        while (digits < 3 && i + digits < raw_text.size() && raw_text[i + digits] >= '0' &&
               raw_text[i + digits] <= '7') {
          ++digits;
        }
        out += code_point(raw_text.substr(i), digits, 8);
        i += digits - 1;
      } else if (c != '\n') {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  std::string code_point(std::string_view digits, size_t count, int base) const {
    digits = digits.substr(0, count);
    unsigned long value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    const bool whole = digits.size() == count && end == digits.data() + digits.size();
    if (error != std::errc{} || !whole || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail("a string has a malformed escape");
    }
    std::string out;
    append_code_point(out, static_cast<char32_t>(value));
    return out;
  }

  const std::string text_;
  const std::string_view view_;
  size_t position_ = 0;
  size_t line_ = 1;
  bool line_starting_ = true;  // nothing but what tags took away stands before on this line
  std::vector<Lexeme> lexemes_;
};

}  // namespace

std::vector<Lexeme> lex(std::string_view source) {
  if (!is_valid_utf8(source)) {
    throw TemplateError(TemplateError::Kind::syntax, 1, "the template is not valid UTF-8");
  }
  return Lexer(source).run();
}

}  // namespace flexllm::tokenizer::jinja
