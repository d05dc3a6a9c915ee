// Filters about lists and dicts. Where Jinja gives an iterator, these give a list.
#include <algorithm>
#include <array>

#include "tokenizer/jinja/access.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/predicates.h"
#include "tokenizer/jinja/text_ops.h"

namespace flexllm::tokenizer::jinja {
namespace {

bool flag(const Arguments& arguments, size_t position, std::string_view name, bool fallback) {
  const Value* value = arguments.find(position, name);
  return value ? value->truthy() : fallback;
}

// The arguments after the first `count`.
Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(count),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

const Test& test_named(Run& run, const Value& name) {
  const Test* test = name.text() ? find_test(name.text()->bytes()) : nullptr;
  if (test == nullptr) run.fail("no test named '" + to_str(run, name).bytes() + "'");
  return *test;
}

Value length_filter(Run& run, const Value& input, const Arguments&) {
  if (const Text* text = input.text()) {
    run.step_for_bytes(text->size());
    return static_cast<int64_t>(length(*text));
  }
  if (const Sequence* sequence = input.sequence()) {
    return static_cast<int64_t>(sequence->items.size());
  }
  if (const Dict* dict = input.dict()) return static_cast<int64_t>(dict->items.size());
  if (input.is_undefined()) return int64_t{0};
  run.fail(std::string("object of type '") + input.type() + "' has no len()");
}

Value default_filter(Run& run, const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default_value");
  const bool empty_too = flag(arguments, 1, "boolean", false);
  if (!input.is_undefined() && !(empty_too && !input.truthy())) return input;
  return fallback ? *fallback : run.text("", Origin::from_template);
}

Value first(Run& run, const Value& input, const Arguments&) {
  const auto items = run.iterate(input);
  return items->items.empty() ? Undefined{"No first item, sequence was empty."}
                              : items->items.front();
}

Value last(Run& run, const Value& input, const Arguments&) {
  const auto items = run.iterate(input);
  return items->items.empty() ? Undefined{"No last item, sequence was empty."}
                              : items->items.back();
}

Value list_filter(Run& run, const Value& input, const Arguments&) {
  return run.list(run.iterate(input)->items);
}

Value items_filter(Run& run, const Value& input, const Arguments&) {
  if (input.is_undefined()) return run.list({});
  if (!input.dict()) run.fail("Can only get item pairs from a mapping.");
  Values pairs;
  for (const auto& [key, value] : input.dict()->items)
    pairs.push_back(run.list({key, value}, true));
  return run.list(std::move(pairs));
}

Value reverse(Run& run, const Value& input, const Arguments&) {
  Values items = run.iterate(input)->items;
  std::reverse(items.begin(), items.end());
  if (!input.text()) return run.list(std::move(items));
  Text result;
  for (const Value& item : items) result.append(*item.text());
  return run.text(std::move(result));
}

Value join(Run& run, const Value& input, const Arguments& arguments) {
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  const Text between = separator ? to_str(run, *separator) : Text();
  Text result;
  bool at_start = true;
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    run.step_for_bytes(between.size());
    if (!std::exchange(at_start, false)) result.append(between);
    append_str(run, result,
               attribute && !attribute->is_none() ? get_path(run, item, *attribute) : item);
  }
  return run.text(std::move(result));
}

Value map_by_attribute(Run& run, const Value& input, const Arguments& arguments,
                       const Value& attribute) {
  const Value* fallback = arguments.find(1, "default");
  Values result;
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    Value found = get_path(run, item, attribute);
    result.push_back(found.is_undefined() && fallback ? *fallback : std::move(found));
  }
  return run.list(std::move(result));
}

// As in Python, map, select and their like make an empty list of whatever is false, also of none.
Value map(Run& run, const Value& input, const Arguments& arguments) {
  if (!input.truthy()) return run.list({});
  if (arguments.positional.empty()) {
    const Value* attribute = arguments.find(0, "attribute");
    if (attribute == nullptr) run.fail("map needs a filter or an attribute");
    return map_by_attribute(run, input, arguments, *attribute);
  }
  const Value& name = arguments.positional[0];
  const Filter* filter = name.text() ? find_filter(name.text()->bytes()) : nullptr;
  if (filter == nullptr) run.fail("no filter named '" + to_str(run, name).bytes() + "'");
  if (filter->apply == map) run.fail("map of map is not supported");
  const Arguments rest = without_first(arguments, 1);
  Values result;
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    result.push_back(apply_filter(run, *filter, item, rest));
  }
  return run.list(std::move(result));
}

// select and reject test the elements, selectattr and rejectattr an attribute of each.
template <bool wanted, bool by_attribute>
Value select(Run& run, const Value& input, const Arguments& arguments) {
  if (!input.truthy()) return run.list({});
  constexpr size_t kTest = by_attribute ? 1 : 0;
  if (arguments.positional.size() < kTest) run.fail("selectattr needs an attribute");
  const Test* test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > kTest) {
    test = &test_named(run, arguments.positional[kTest]);
    rest = without_first(arguments, kTest + 1);
  }
  Values result;
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    const Value subject = by_attribute ? get_path(run, item, arguments.positional[0]) : item;
    const bool holds = test ? run_test(run, *test, subject, rest) : subject.truthy();
    if (holds == wanted) result.push_back(item);
  }
  return run.list(std::move(result));
}

// What sort, unique, min and max compare: the element or its attribute, strings in lower case.
Value sort_key(Run& run, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = attribute && !attribute->is_none() ? get_path(run, item, *attribute) : item;
  if (case_sensitive || !key.text()) return key;
  run.step_for_bytes(16 * key.text()->size());
  return run.text(lower(*key.text()));
}

// Sorted by keys, stable; `items` and `keys` go together.
Values sorted(Run& run, const Values& items, const Values& keys, bool reversed) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reversed ? less(run, keys[b], keys[a]) : less(run, keys[a], keys[b]);
  });
  Values result;
  for (const size_t i : order) result.push_back(items[i]);
  return result;
}

Value sort(Run& run, const Value& input, const Arguments& arguments) {
  const bool reversed = flag(arguments, 0, "reverse", false);
  const bool case_sensitive = flag(arguments, 1, "case_sensitive", false);
  const Value* attribute = arguments.find(2, "attribute");
  const auto items = run.iterate(input);
  Values keys;
  for (const Value& item : items->items) {
    keys.push_back(sort_key(run, item, attribute, case_sensitive));
  }
  return run.list(sorted(run, items->items, keys, reversed));
}

Value dictsort(Run& run, const Value& input, const Arguments& arguments) {
  const bool case_sensitive = flag(arguments, 0, "case_sensitive", false);
  const Value* by = arguments.find(1, "by");
  const bool reversed = flag(arguments, 2, "reverse", false);
  const std::string what = by && by->text() ? by->text()->bytes() : "key";
  if (what != "key" && what != "value")
    run.fail("You can only sort by either \"key\" or \"value\"");
  if (!input.dict()) run.fail("dictsort expects a dict");
  Values pairs;
  Values keys;
  for (const auto& [key, value] : input.dict()->items) {
    pairs.push_back(run.list({key, value}, true));
    keys.push_back(sort_key(run, what == "key" ? key : value, nullptr, case_sensitive));
  }
  return run.list(sorted(run, pairs, keys, reversed));
}

Value unique(Run& run, const Value& input, const Arguments& arguments) {
  const bool case_sensitive = flag(arguments, 0, "case_sensitive", false);
  const Value* attribute = arguments.find(1, "attribute");
  Values result;
  Values seen;
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    Value key = sort_key(run, item, attribute, case_sensitive);
    const bool known = std::any_of(seen.begin(), seen.end(),
                                   [&](const Value& other) { return equal(run, other, key); });
    if (known) continue;
    seen.push_back(std::move(key));
    result.push_back(item);
  }
  return run.list(std::move(result));
}

template <bool largest>
Value extreme(Run& run, const Value& input, const Arguments& arguments) {
  const bool case_sensitive = flag(arguments, 0, "case_sensitive", false);
  const Value* attribute = arguments.find(1, "attribute");
  const auto items = run.iterate(input);
  if (items->items.empty()) return Undefined{"No aggregated item, sequence was empty."};
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items->items) {
    Value key = sort_key(run, item, attribute, case_sensitive);
    if (best == nullptr || (largest ? less(run, best_key, key) : less(run, key, best_key))) {
      best = &item;
      best_key = std::move(key);
    }
  }
  return *best;
}

Value sum(Run& run, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start ? *start : Value(int64_t{0});
  const auto visited = run.iterate(input);
  for (const Value& item : visited->items) {
    total = arithmetic(run, Binary::Op::add, total,
                       attribute && !attribute->is_none() ? get_path(run, item, *attribute) : item);
  }
  return total;
}

Value attr(Run& run, const Value& input, const Arguments& arguments) {
  const Value* name = arguments.find(0, "name");
  if (!name || !name->text()) run.fail("attr needs the name of an attribute");
  if (input.dict()) {  // elements of a dict are not attributes
    if (auto method = find_method(run, input, name->text()->bytes())) return *std::move(method);
    return Undefined{"'dict object' has no attribute '" + name->text()->bytes() + "'"};
  }
  return get_attribute(run, input, name->text()->bytes());
}

constexpr std::array kFilters = {
    Filter{"attr", attr, "name"},
    Filter{"count", length_filter, ""},
    Filter{"d", default_filter, "default_value boolean"},
    Filter{"default", default_filter, "default_value boolean"},
    Filter{"dictsort", dictsort, "case_sensitive by reverse"},
    Filter{"first", first, ""},
    Filter{"items", items_filter, ""},
    Filter{"join", join, "d attribute"},
    Filter{"last", last, ""},
    Filter{"length", length_filter, ""},
    Filter{"list", list_filter, ""},
    Filter{"map", map, "*"},
    Filter{"max", extreme<true>, "case_sensitive attribute"},
    Filter{"min", extreme<false>, "case_sensitive attribute"},
    Filter{"reject", select<false, false>, "*"},
    Filter{"rejectattr", select<false, true>, "*"},
    Filter{"reverse", reverse, ""},
    Filter{"select", select<true, false>, "*"},
    Filter{"selectattr", select<true, true>, "*"},
    Filter{"sort", sort, "reverse case_sensitive attribute"},
    Filter{"sum", sum, "attribute start"},
    Filter{"unique", unique, "case_sensitive attribute"},
};

}  // namespace

std::span<const Filter> sequence_filters() { return kFilters; }

}  // namespace flexllm::tokenizer::jinja
