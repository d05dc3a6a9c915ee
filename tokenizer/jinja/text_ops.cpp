#include "tokenizer/jinja/text_ops.h"

#include <algorithm>
#include <limits>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

std::string_view view(const Text& text) { return text.bytes(); }

bool is_member(char32_t code_point, std::optional<std::string_view> characters) {
  if (!characters) return is_space(code_point);
  for (size_t at = 0; at < characters->size();) {
    if (read_code_point(*characters, at) == code_point) return true;
  }
  return false;
}

bool is_cased(char32_t code_point) { return is_upper(code_point) || is_lower(code_point); }

// Each character through `map`, which may tell by its second argument that it is the first of a
// word; `starts_word(previous)` says so of the character after `previous`.
template <typename StartsWord, typename Map>
Text mapped(const Text& text, StartsWord starts_word, Map map) {
  Text result;
  bool first = true;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t code_point = read_code_point(view(text), at);
    result.append(map(code_point, first), text.origin_at(begin));
    first = starts_word(code_point);
  }
  return result;
}

constexpr auto kNeverAgain = [](char32_t) { return false; };

std::string title_or_lower(char32_t code_point, bool first) {
  return first ? to_title(code_point) : to_lower(code_point);
}

std::vector<Text> split_words(const Text& text, int64_t limit) {
  std::vector<Text> words;
  size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < text.size()) {
      size_t next = at;
      if (is_space(read_code_point(view(text), next)) != spaces) break;
      at = next;
    }
  };
  for (;;) {
    skip(true);
    if (at == text.size()) return words;
    if (limit >= 0 && words.size() == static_cast<size_t>(limit)) break;
    const size_t begin = at;
    skip(false);
    words.push_back(text.part(begin, at));
  }
  words.push_back(text.part(at, text.size()));
  return words;
}

}  // namespace

Text strip(const Text& text, std::optional<std::string_view> characters, Side side) {
  size_t begin = 0;
  size_t end = text.size();
  if (side != Side::right) {
    for (size_t next = 0; next < end; begin = next) {
      if (!is_member(read_code_point(view(text), next), characters)) break;
    }
  }
  if (side != Side::left) {
    size_t last = begin;  // the end of the last character to stay
    for (size_t at = begin; at < end;) {
      if (!is_member(read_code_point(view(text), at), characters)) last = at;
    }
    end = last;
  }
  return text.part(begin, end);
}

Text upper(const Text& text) {
  return mapped(text, kNeverAgain, [](char32_t c, bool) { return to_upper(c); });
}

Text lower(const Text& text) {
  return mapped(text, kNeverAgain, [](char32_t c, bool) { return to_lower(c); });
}

Text capitalize(const Text& text) { return mapped(text, kNeverAgain, title_or_lower); }

Text title(const Text& text) {
  return mapped(
      text, [](char32_t previous) { return !is_cased(previous); }, title_or_lower);
}

Text title_of_words(const Text& text) {
  const auto starts_word = [](char32_t previous) {
    return is_space(previous) || std::u32string_view(U"-({[<").find(previous) != std::string::npos;
  };
  return mapped(text, starts_word,
                [](char32_t c, bool first) { return first ? to_upper(c) : to_lower(c); });
}

Text replace(const Text& text, std::string_view what, const Text& with, int64_t count) {
  uint64_t left = count < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(count);
  Text result;
  size_t done = 0;
  if (what.empty()) {
    for (size_t at = 0; at <= text.size() && left > 0; --left) {
      result.append(with);
      done = at;
      if (at == text.size()) break;
      read_code_point(view(text), at);
      result.append(text, done, at);
      done = at;
    }
  } else {
    for (size_t at = view(text).find(what); at != std::string_view::npos && left > 0;
         at = view(text).find(what, done), --left) {
      result.append(text, done, at);
      result.append(with);
      done = at + what.size();
    }
  }
  result.append(text, done, text.size());
  return result;
}

std::vector<Text> split(const Text& text, std::optional<std::string_view> separator,
                        int64_t limit) {
  if (!separator) return split_words(text, limit);
  std::vector<Text> parts;
  size_t done = 0;
  for (size_t at = view(text).find(*separator); at != std::string_view::npos;
       at = view(text).find(*separator, done)) {
    if (limit >= 0 && parts.size() == static_cast<size_t>(limit)) break;
    parts.push_back(text.part(done, at));
    done = at + separator->size();
  }
  parts.push_back(text.part(done, text.size()));
  return parts;
}

std::vector<Text> split_from_right(const Text& text, std::string_view separator, int64_t limit) {
  // Cuts are found from the right; unlike from the left they may differ for separators like "aa".
  std::vector<Text> parts;
  size_t end = text.size();
  while (limit < 0 || parts.size() < static_cast<size_t>(limit)) {
    const size_t at = view(text).substr(0, end).rfind(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.part(at + separator.size(), end));
    end = at;
  }
  parts.push_back(text.part(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Text> split_lines(const Text& text) {
  constexpr std::u32string_view kBreaks = U"\n\r\v\f\x1C\x1D\x1E\x85\u2028\u2029";
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t code_point = read_code_point(view(text), at);
    if (kBreaks.find(code_point) == std::u32string_view::npos) continue;
    if (code_point == '\r' && at < text.size() && view(text)[at] == '\n') ++at;
    lines.push_back(text.part(begin, end));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.part(begin, text.size()));
  return lines;
}

size_t length(const Text& text) {
  return static_cast<size_t>(std::count_if(text.bytes().begin(), text.bytes().end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<size_t> character_starts(const Text& text) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); read_code_point(view(text), at)) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

}  // namespace flexllm::tokenizer::jinja
