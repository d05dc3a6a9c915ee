// Filters about strings and numbers.
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace flexllm::tokenizer::jinja {
namespace {

template <Text (*map)(const Text&)>
Value map_text(Run& run, const Value& input, const Arguments&) {
  const Text text = to_str(run, input);
  run.step_for_bytes(16 * text.size());
  return run.text(map(text));
}

Value trim(Run& run, const Value& input, const Arguments& arguments) {
  const Value* given = arguments.find(0, "chars");
  const bool has_characters = given != nullptr && !given->is_none();
  const Text characters = has_characters ? to_str(run, *given) : Text();
  const Text text = to_str(run, input);
  run.step_for_bytes(text.size() * (1 + characters.size()));
  return run.text(strip(
      text, has_characters ? std::optional<std::string_view>(characters.bytes()) : std::nullopt,
      Side::both));
}

Value replace_filter(Run& run, const Value& input, const Arguments& arguments) {
  const Value* what = arguments.find(0, "old");
  const Value* with = arguments.find(1, "new");
  const Value* count = arguments.find(2, "count");
  if (!what || !with) run.fail("replace needs what to replace and with what");
  if (count && !count->is_none() && !count->is_int()) run.fail("replace: the count is no integer");
  const Text text = to_str(run, input);
  const Text old_text = to_str(run, *what);
  const Text new_text = to_str(run, *with);
  run.step_for_bytes((text.size() + 1) / std::max<size_t>(old_text.size(), 1) * new_text.size());
  return run.text(
      replace(text, old_text.bytes(), new_text, count && count->is_int() ? count->as_int() : -1));
}

Value string_filter(Run& run, const Value& input, const Arguments&) {
  return input.text() ? input : run.text(to_str(run, input));
}

Value safe(Run&, const Value& input, const Arguments&) { return input; }

Value escape(Run& run, const Value& input, const Arguments&) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kEntities = {
      {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}}};
  Text text = to_str(run, input);
  for (const auto& [character, entity] : kEntities) {
    run.step_for_bytes(text.size() * 5);
    text = replace(text, character, Text(entity, text.origin()), -1);
  }
  return run.text(std::move(text));
}

Value indent(Run& run, const Value& input, const Arguments& arguments) {
  const Value* width = arguments.find(0, "width");
  const Value* first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  Text margin;
  if (width && width->text()) {
    margin = *width->text();
  } else {
    if (width && !width->is_int()) run.fail("indent: the width is neither integer nor string");
    const auto count = static_cast<size_t>(width ? std::max<int64_t>(width->as_int(), 0) : 4);
    run.step_for_bytes(count);
    margin = Text(std::string(count, ' '), Origin::from_template);
  }
  Text text = to_str(run, input);
  text.append("\n", Origin::from_template);
  const std::vector<Text> lines = split_lines(text);
  run.step_for_bytes(text.size() + lines.size() * (margin.size() + 64));
  Text result;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result.append("\n", Origin::from_template);
    const bool wanted =
        i == 0 ? first && first->truthy() : !lines[i].empty() || (blank && blank->truthy());
    if (wanted) result.append(margin);
    result.append(lines[i]);
  }
  return run.text(std::move(result));
}

Value to_json_filter(Run& run, const Value& input, const Arguments& arguments) {
  JsonStyle style;
  if (const Value* ascii = arguments.find(0, "ensure_ascii")) style.ensure_ascii = ascii->truthy();
  if (const Value* indent_value = arguments.find(1, "indent");
      indent_value && !indent_value->is_none()) {
    if (indent_value->text()) {
      style.indent = indent_value->text()->bytes();
    } else if (indent_value->is_int()) {
      const auto width = static_cast<size_t>(std::max<int64_t>(indent_value->as_int(), 0));
      run.step_for_bytes(width);
      style.indent = std::string(width, ' ');
    } else {
      run.fail("tojson: indent is neither integer nor string");
    }
    style.item_separator = ',';
  }
  if (const Value* separators = arguments.find(2, "separators");
      separators && !separators->is_none()) {
    const Sequence* pair = separators->sequence();
    if (!pair || pair->items.size() != 2 || !pair->items[0].text() || !pair->items[1].text()) {
      run.fail("tojson: separators are two strings");
    }
    style.item_separator = pair->items[0].text()->bytes();
    style.key_separator = pair->items[1].text()->bytes();
  }
  if (const Value* sort = arguments.find(3, "sort_keys")) style.sort_keys = sort->truthy();
  return run.text(to_json(run, input, style));
}

// The number that the whole of a string spells, white space around it aside.
template <typename T>
std::optional<T> parsed(const Text& text) {
  const Text core = strip(text, std::nullopt, Side::both);
  std::string_view digits = core.bytes();
  if (digits.starts_with('+')) digits.remove_prefix(1);
  T number{};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return number;
}

Value int_filter(Run& run, const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default");
  const Value* base = arguments.find(1, "base");
  if (base && !(base->is_int() && base->as_int() == 10)) run.fail("int: only base 10 is supported");
  if (input.is_int()) return input.as_int();
  std::optional<double> number;
  if (input.is_float()) number = input.as_double();
  if (input.text()) {
    if (const auto integer = parsed<int64_t>(*input.text())) return *integer;
    number = parsed<double>(*input.text());
  }
  constexpr double kRange = 9223372036854775808.0;
  if (number && std::trunc(*number) >= -kRange && std::trunc(*number) < kRange) {
    return static_cast<int64_t>(*number);
  }
  return fallback ? *fallback : Value(int64_t{0});
}

Value float_filter(Run&, const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default");
  if (input.is_number()) return input.as_double();
  if (input.text()) {
    if (const auto number = parsed<double>(*input.text())) return *number;
  }
  return fallback ? *fallback : Value(0.0);
}

Value absolute(Run& run, const Value& input, const Arguments&) {
  if (!input.is_number()) run.fail(std::string("bad operand type for abs(): ") + input.type());
  return input.as_double() < 0 ? negative(run, input)
                               : arithmetic(run, Binary::Op::add, input, int64_t{0});
}

Value round_filter(Run& run, const Value& input, const Arguments& arguments) {
  const Value* precision = arguments.find(0, "precision");
  const Value* method = arguments.find(1, "method");
  if (!input.is_number()) run.fail(std::string("round: not a number but ") + input.type());
  const int64_t digits = precision && precision->is_int() ? precision->as_int() : 0;
  if (digits < 0 || digits > 17) run.fail("round: the precision is 0 to 17");
  const std::string how = method && method->text() ? method->text()->bytes() : "common";
  if (how == "common") {
    if (input.is_int()) return input.as_int();
    std::array<char, 400> buffer{};  // the longest double before the point has 309 digits
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), input.as_double(),
                                   std::chars_format::fixed, static_cast<int>(digits));
    double rounded = 0;
    std::from_chars(buffer.data(), end.ptr, rounded);
    return rounded;
  }
  if (how != "ceil" && how != "floor") run.fail("round: the method is common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = input.as_double() * scale;
  return (how == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

constexpr std::array kFilters = {
    Filter{"abs", absolute, ""},
    Filter{"capitalize", map_text<capitalize>, ""},
    Filter{"e", escape, ""},
    Filter{"escape", escape, ""},
    Filter{"float", float_filter, "default"},
    Filter{"indent", indent, "width first blank"},
    Filter{"int", int_filter, "default base"},
    Filter{"lower", map_text<lower>, ""},
    Filter{"replace", replace_filter, "old new count"},
    Filter{"round", round_filter, "precision method"},
    Filter{"safe", safe, ""},
    Filter{"string", string_filter, ""},
    Filter{"title", map_text<title_of_words>, ""},
    Filter{"tojson", to_json_filter, "ensure_ascii indent separators sort_keys"},
    Filter{"trim", trim, "chars"},
    Filter{"upper", map_text<upper>, ""},
};

}  // namespace

std::span<const Filter> text_filters() { return kFilters; }

}  // namespace flexllm::tokenizer::jinja
