// json.dumps() of Python, for the filter `tojson`.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

constexpr Origin kTemplate = Origin::from_template;

std::string unicode_escape(unsigned unit) {
  std::array<char, 16> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "\\u%04x", unit);
  return buffer.data();
}

std::string escaped(char32_t code_point, bool ensure_ascii) {
  switch (code_point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  const bool beyond_ascii = ensure_ascii && code_point > 0x7F;
  if (code_point < 0x20 || (beyond_ascii && code_point < 0x10000)) {
    return unicode_escape(static_cast<unsigned>(code_point));
  }
  if (beyond_ascii) {
    const auto offset = static_cast<unsigned>(code_point) - 0x10000;
    return unicode_escape(0xD800 + (offset >> 10)) + unicode_escape(0xDC00 + (offset & 0x3FF));
  }
  std::string out;
  append_code_point(out, code_point);
  return out;
}

class Writer {
 public:
  Writer(Run& run, const JsonStyle& style) : run_(run), style_(style) {}

  void write(const Value& value) {
    run_.step();
    if (const Text* text = value.text()) {
      write_text(*text);
    } else if (value.is_none()) {
      put("null");
    } else if (value.is_bool()) {
      put(value.truthy() ? "true" : "false");
    } else if (value.is_int()) {
      put(std::to_string(value.as_int()));
    } else if (value.is_float()) {
      put(number(value.as_double()));
    } else if (const Sequence* sequence = value.sequence()) {
      write_group('[', ']', sequence->items.size(), [&](size_t i) { write(sequence->items[i]); });
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict);
    } else {
      run_.fail(std::string("Object of type ") + value.type() + " is not JSON serializable");
    }
  }

  Text take() { return std::move(out_); }

 private:
  void put(std::string_view text) { out_.append(text, kTemplate); }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return float_repr(value);
  }

  void write_text(const Text& text) {
    run_.step_for_bytes(text.size());
    put("\"");
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      const char32_t code_point = read_code_point(text.bytes(), at);
      out_.append(escaped(code_point, style_.ensure_ascii), text.origin_at(begin));
    }
    put("\"");
  }

  void write_key(const Value& key) {
    if (key.text()) return write(key);
    if (!key.is_none() && !key.is_number()) {
      run_.fail(std::string("keys must be str, int, float, bool or None, not ") + key.type());
    }
    put("\"");
    write(key);
    put("\"");
  }

  void write_dict(const Dict& dict) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](const auto* a, const auto* b) {
        return less(run_, a->first, b->first);
      });
    }
    write_group('{', '}', items.size(), [&](size_t i) {
      write_key(items[i]->first);
      put(style_.key_separator);
      write(items[i]->second);
    });
  }

  template <typename WriteItem>
  void write_group(char open, char close, size_t count, WriteItem write_item) {
    put(std::string(1, open));
    ++level_;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) put(style_.item_separator);
      new_line();
      write_item(i);
    }
    --level_;
    if (count > 0) new_line();
    put(std::string(1, close));
  }

  void new_line() {
    if (!style_.indent) return;
    put("\n");
    run_.step_for_bytes(level_ * style_.indent->size());
    for (size_t i = 0; i < level_; ++i) put(*style_.indent);
  }

  Run& run_;
  const JsonStyle& style_;
  Text out_;
  size_t level_ = 0;
};

}  // namespace

Text to_json(Run& run, const Value& value, const JsonStyle& style) {
  Writer writer(run, style);
  writer.write(value);
  return writer.take();
}

}  // namespace flexllm::tokenizer::jinja
