// The methods of Python's str, list and dict that change nothing.
#include <algorithm>
#include <array>

#include "tokenizer/jinja/access.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

struct Method {
  std::string_view name;
  Value (*call)(Run&, const Value&, const Arguments&);
};

const Text& text_argument(Run& run, const Arguments& arguments, size_t position,
                          std::string_view name) {
  const Value* value = arguments.find(position, name);
  if (value == nullptr || !value->text()) {
    run.fail("a string is expected as argument " + std::to_string(position + 1));
  }
  return *value->text();
}

int64_t int_argument(Run& run, const Arguments& arguments, size_t position, std::string_view name,
                     int64_t fallback) {
  const Value* value = arguments.find(position, name);
  if (value == nullptr) return fallback;
  if (!value->is_int()) {
    run.fail("an integer is expected as argument " + std::to_string(position + 1));
  }
  return value->as_int();
}

// Absent or none, or a string.
std::optional<std::string_view> optional_text(Run& run, const Arguments& arguments,
                                              std::string_view name) {
  const Value* value = arguments.find(0, name);
  if (value == nullptr || value->is_none()) return std::nullopt;
  return text_argument(run, arguments, 0, name).bytes();
}

template <Side side>
Value strip_method(Run& run, const Value& self, const Arguments& arguments) {
  const auto characters = optional_text(run, arguments, "chars");
  run.step_for_bytes(self.text()->size() * (1 + (characters ? characters->size() : 0)));
  return run.text(strip(*self.text(), characters, side));
}

template <Text (*map)(const Text&)>
Value map_method(Run& run, const Value& self, const Arguments&) {
  run.step_for_bytes(16 * self.text()->size());
  return run.text(map(*self.text()));
}

// startswith and endswith take a string or a tuple of strings.
template <bool at_start>
Value affix_method(Run& run, const Value& self, const Arguments& arguments) {
  const std::string& text = self.text()->bytes();
  const auto fits = [&](const Value& affix) {
    if (!affix.text()) run.fail("startswith and endswith expect strings");
    const std::string& bytes = affix.text()->bytes();
    return at_start ? text.starts_with(bytes) : text.ends_with(bytes);
  };
  const Value* affix = arguments.find(0, "prefix");
  if (affix == nullptr) run.fail("startswith and endswith expect an argument");
  if (!affix->sequence()) return fits(*affix);
  const Values& items = affix->sequence()->items;
  return std::any_of(items.begin(), items.end(), fits);
}

Value list_of(Run& run, std::vector<Text> parts) {
  Values items;
  for (Text& part : parts) items.push_back(run.text(std::move(part)));
  return run.list(std::move(items));
}

Value split_method(Run& run, const Value& self, const Arguments& arguments) {
  const auto separator = optional_text(run, arguments, "sep");
  if (separator && separator->empty()) run.fail("empty separator");
  run.step_for_bytes(16 * self.text()->size());
  return list_of(run,
                 split(*self.text(), separator, int_argument(run, arguments, 1, "maxsplit", -1)));
}

Value rsplit_method(Run& run, const Value& self, const Arguments& arguments) {
  const Text& separator = text_argument(run, arguments, 0, "sep");
  if (separator.empty()) run.fail("empty separator");
  run.step_for_bytes(16 * self.text()->size());
  return list_of(run, split_from_right(*self.text(), separator.bytes(),
                                       int_argument(run, arguments, 1, "maxsplit", -1)));
}

Value splitlines_method(Run& run, const Value& self, const Arguments&) {
  run.step_for_bytes(16 * self.text()->size());
  return list_of(run, split_lines(*self.text()));
}

Value replace_method(Run& run, const Value& self, const Arguments& arguments) {
  const Text& what = text_argument(run, arguments, 0, "old");
  const Text& with = text_argument(run, arguments, 1, "new");
  // At most one replacement per byte and one more.
  run.step_for_bytes((self.text()->size() + 1) / std::max<size_t>(what.size(), 1) * with.size());
  return run.text(
      replace(*self.text(), what.bytes(), with, int_argument(run, arguments, 2, "count", -1)));
}

template <bool from_left>
Value find_in_text(Run& run, const Value& self, const Arguments& arguments) {
  const std::string& bytes = self.text()->bytes();
  const std::string& what = text_argument(run, arguments, 0, "sub").bytes();
  run.step_for_bytes(bytes.size());
  const size_t at = from_left ? bytes.find(what) : bytes.rfind(what);
  if (at == std::string::npos) return int64_t{-1};
  return static_cast<int64_t>(length(self.text()->part(0, at)));
}

Value count_in_text(Run& run, const Value& self, const Arguments& arguments) {
  const Text& what = text_argument(run, arguments, 0, "sub");
  if (what.empty()) return static_cast<int64_t>(length(*self.text())) + 1;
  run.step_for_bytes(16 * self.text()->size());
  return static_cast<int64_t>(split(*self.text(), what.bytes(), -1).size()) - 1;
}

Value join_method(Run& run, const Value& self, const Arguments& arguments) {
  const Value* items = arguments.find(0, "iterable");
  if (items == nullptr) run.fail("join() expects an argument");
  Text result;
  bool first = true;
  const auto visited = run.iterate(*items);
  for (const Value& item : visited->items) {
    if (!item.text()) run.fail(std::string("join() expects strings, not ") + item.type());
    run.step_for_bytes(self.text()->size() + item.text()->size());
    if (!std::exchange(first, false)) result.append(*self.text());
    result.append(*item.text());
  }
  return run.text(std::move(result));
}

template <bool (*predicate)(char32_t)>
Value all_characters(Run& run, const Value& self, const Arguments&) {
  const std::string& bytes = self.text()->bytes();
  run.step_for_bytes(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    if (!predicate(read_code_point(bytes, at))) return false;
  }
  return !bytes.empty();
}

bool is_alphanumeric(char32_t c) { return is_alphabetic(c) || is_decimal_digit(c); }

// islower and isupper: some character has a case, and none has the other.
template <bool (*wanted)(char32_t), bool (*other)(char32_t)>
Value has_case(Run& run, const Value& self, const Arguments&) {
  const std::string& bytes = self.text()->bytes();
  run.step_for_bytes(bytes.size());
  bool found = false;
  for (size_t at = 0; at < bytes.size();) {
    const char32_t code_point = read_code_point(bytes, at);
    if (other(code_point)) return false;
    found = found || wanted(code_point);
  }
  return found;
}

constexpr std::array kTextMethods = {
    Method{"capitalize", map_method<capitalize>},
    Method{"count", count_in_text},
    Method{"endswith", affix_method<false>},
    Method{"find", find_in_text<true>},
    Method{"isalnum", all_characters<is_alphanumeric>},
    Method{"isalpha", all_characters<is_alphabetic>},
    Method{"isdecimal", all_characters<is_decimal_digit>},
    Method{"isdigit", all_characters<is_decimal_digit>},
    Method{"islower", has_case<is_lower, is_upper>},
    Method{"isspace", all_characters<is_space>},
    Method{"isupper", has_case<is_upper, is_lower>},
    Method{"join", join_method},
    Method{"lower", map_method<lower>},
    Method{"lstrip", strip_method<Side::left>},
    Method{"replace", replace_method},
    Method{"rfind", find_in_text<false>},
    Method{"rsplit", rsplit_method},
    Method{"rstrip", strip_method<Side::right>},
    Method{"split", split_method},
    Method{"splitlines", splitlines_method},
    Method{"startswith", affix_method<true>},
    Method{"strip", strip_method<Side::both>},
    Method{"title", map_method<title>},
    Method{"upper", map_method<upper>},
};

Value dict_items(Run& run, const Value& self, const Arguments&) {
  Values items;
  for (const auto& [key, value] : self.dict()->items) {
    items.push_back(run.list({key, value}, /*tuple=*/true));
  }
  return run.list(std::move(items));
}

Value dict_keys(Run& run, const Value& self, const Arguments&) {
  Values items;
  for (const auto& item : self.dict()->items) items.push_back(item.first);
  return run.list(std::move(items));
}

Value dict_values(Run& run, const Value& self, const Arguments&) {
  Values items;
  for (const auto& item : self.dict()->items) items.push_back(item.second);
  return run.list(std::move(items));
}

Value dict_get(Run& run, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) run.fail("get() expects a key");
  run.step(1 + self.dict()->items.size() / 8);
  if (const Value* found = self.dict()->find(arguments.positional[0])) return *found;
  const Value* fallback = arguments.find(1, "default");
  return fallback ? *fallback : Value();
}

constexpr std::array kDictMethods = {
    Method{"get", dict_get},
    Method{"items", dict_items},
    Method{"keys", dict_keys},
    Method{"values", dict_values},
};

Value count_in_list(Run& run, const Value& self, const Arguments& arguments) {
  if (arguments.positional.size() != 1) run.fail("count() expects one argument");
  const Values& items = self.sequence()->items;
  run.step(items.size());
  return static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
    return equal(run, item, arguments.positional[0]);
  }));
}

Value index_in_list(Run& run, const Value& self, const Arguments& arguments) {
  if (arguments.positional.size() != 1) run.fail("index() expects one argument");
  const Values& items = self.sequence()->items;
  run.step(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(run, items[i], arguments.positional[0])) return static_cast<int64_t>(i);
  }
  run.fail("index(): the element is not in the list");
}

constexpr std::array kListMethods = {
    Method{"count", count_in_list},
    Method{"index", index_in_list},
};

}  // namespace

std::optional<Value> find_method(Run& run, const Value& object, std::string_view name) {
  const auto find_in = [&](const auto& methods) -> std::optional<Value> {
    for (const Method& method : methods) {
      if (method.name == name) return run.method(object, name, method.call);
    }
    return std::nullopt;
  };
  if (object.text()) return find_in(kTextMethods);
  if (object.dict()) return find_in(kDictMethods);
  if (object.sequence()) return find_in(kListMethods);
  return std::nullopt;
}

}  // namespace flexllm::tokenizer::jinja
