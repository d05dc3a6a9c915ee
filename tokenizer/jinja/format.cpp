#include "tokenizer/jinja/format.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

constexpr Origin kTemplate = Origin::from_template;

std::string hex(const char* format, char32_t code_point) {
  std::array<char, 16> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, static_cast<unsigned>(code_point));
  return buffer.data();
}

void append_text_repr(Text& out, const Text& text) {
  const std::string& bytes = text.bytes();
  const bool double_quotes =
      bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  out.append(std::string(1, quote), kTemplate);
  for (size_t at = 0; at < bytes.size();) {
    const size_t begin = at;
    const char32_t c = read_code_point(bytes, at);
    std::string shown;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      shown = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      shown = "\\n";
    } else if (c == '\r') {
      shown = "\\r";
    } else if (c == '\t') {
      shown = "\\t";
    } else if (is_printable(c)) {
      shown = bytes.substr(begin, at - begin);
    } else {
      shown = hex(c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    out.append(shown, text.origin_at(begin));
  }
  out.append(std::string(1, quote), kTemplate);
}

void append_items_repr(Run& run, Text& out, const Sequence& sequence) {
  out.append(sequence.tuple ? "(" : "[", kTemplate);
  bool first = true;
  for (const Value& item : sequence.items) {
    if (!std::exchange(first, false)) out.append(", ", kTemplate);
    append_repr(run, out, item);
  }
  if (sequence.tuple && sequence.items.size() == 1) out.append(",", kTemplate);
  out.append(sequence.tuple ? ")" : "]", kTemplate);
}

void append_items_repr(Run& run, Text& out, const Dict& dict) {
  out.append("{", kTemplate);
  bool first = true;
  for (const auto& [key, value] : dict.items) {
    if (!std::exchange(first, false)) out.append(", ", kTemplate);
    append_repr(run, out, key);
    out.append(": ", kTemplate);
    append_repr(run, out, value);
  }
  out.append("}", kTemplate);
}

}  // namespace

std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer{};
  const auto scientific = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number,
                                        std::chars_format::scientific);
  std::string text(buffer.data(), scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed);
  text.assign(buffer.data(), fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

void append_repr(Run& run, Text& out, const Value& value) {
  run.step();
  if (const Text* text = value.text()) {
    run.step_for_bytes(text->size());
    append_text_repr(out, *text);
  } else if (const Sequence* sequence = value.sequence()) {
    append_items_repr(run, out, *sequence);
  } else if (const Dict* dict = value.dict()) {
    append_items_repr(run, out, *dict);
  } else if (value.is_undefined()) {
    out.append("Undefined", kTemplate);
  } else {
    append_str(run, out, value);
  }
}

void append_str(Run& run, Text& out, const Value& value) {
  run.step();
  if (const Text* text = value.text()) {
    run.step_for_bytes(text->size());
    out.append(*text);
  } else if (value.is_bool()) {
    out.append(value.truthy() ? "True" : "False", kTemplate);
  } else if (value.is_int()) {
    out.append(std::to_string(value.as_int()), kTemplate);
  } else if (value.is_float()) {
    out.append(float_repr(value.as_double()), kTemplate);
  } else if (value.is_none()) {
    out.append("None", kTemplate);
  } else if (value.sequence() || value.dict()) {
    append_repr(run, out, value);
  } else if (const Function* function = value.function()) {
    out.append("<function " + function->name + ">", kTemplate);
  } else if (!value.is_undefined()) {
    out.append(std::string("<") + value.type() + ">", kTemplate);
  }
}

Text to_str(Run& run, const Value& value) {
  Text out;
  append_str(run, out, value);
  return out;
}

}  // namespace flexllm::tokenizer::jinja
