#include "tokenizer/jinja/access.h"

#include <algorithm>
#include <charconv>

#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/text_ops.h"

namespace flexllm::tokenizer::jinja {
namespace {

Value missing(const Value& object, const std::string& name) {
  return Undefined{std::string("'") + object.type() + " object' has no attribute '" + name + "'"};
}

void check_defined(Run& run, const Value& object) {
  if (const auto* undefined = std::get_if<Undefined>(&object.storage())) {
    run.fail(undefined->message);
  }
}

Value cycle(Run& run, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) run.fail("no items for cycling given");
  return arguments.positional[self.loop()->index % arguments.positional.size()];
}

Value loop_attribute(Run& run, const Value& object, const std::string& name) {
  const Loop& loop = *object.loop();
  const Values& items = loop.items->items;
  const auto number = [](size_t value) { return Value(static_cast<int64_t>(value)); };
  if (name == "index") return number(loop.index + 1);
  if (name == "index0") return number(loop.index);
  if (name == "revindex") return number(items.size() - loop.index);
  if (name == "revindex0") return number(items.size() - loop.index - 1);
  if (name == "first") return loop.index == 0;
  if (name == "last") return loop.index + 1 == items.size();
  if (name == "length") return number(items.size());
  if (name == "depth") return number(1);  // of recursive loops, which we do not have
  if (name == "depth0") return number(0);
  if (name == "cycle") return run.method(object, "cycle", cycle);
  if (name == "previtem") {
    return loop.index > 0 ? items[loop.index - 1] : Undefined{"there is no previous item"};
  }
  if (name == "nextitem") {
    return loop.index + 1 < items.size() ? items[loop.index + 1]
                                         : Undefined{"there is no next item"};
  }
  return missing(object, name);
}

// The index of an element, counted from the end if negative; nothing outside.
std::optional<size_t> position_of(int64_t index, size_t size) {
  const auto count = static_cast<int64_t>(size);
  if (index < 0) index += count;
  if (index < 0 || index >= count) return std::nullopt;
  return static_cast<size_t>(index);
}

// The positions that a slice takes of `size` elements, as slice.indices() of Python.
std::vector<size_t> slice_positions(Run& run, const SliceBounds& bounds, size_t size) {
  const int64_t step = bounds.step.value_or(1);
  if (step == 0) run.fail("slice step cannot be zero");
  const auto count = static_cast<int64_t>(size);
  const int64_t lowest = step < 0 ? -1 : 0;
  const int64_t highest = step < 0 ? count - 1 : count;
  const auto clamped = [&](const std::optional<int64_t>& bound, int64_t fallback) {
    if (!bound) return fallback;
    return std::clamp(*bound < 0 ? *bound + count : *bound, lowest, highest);
  };
  int64_t at = clamped(bounds.start, step < 0 ? highest : lowest);
  const int64_t stop = clamped(bounds.stop, step < 0 ? lowest : highest);
  std::vector<size_t> positions;
  while (step < 0 ? at > stop : at < stop) {
    positions.push_back(static_cast<size_t>(at));
    if (step > count || step < -count) break;  // the next one is outside
    at += step;
  }
  return positions;
}

}  // namespace

Value get_attribute(Run& run, const Value& object, const std::string& name) {
  run.step();
  check_defined(run, object);
  if (object.loop()) return loop_attribute(run, object, name);
  if (Namespace* name_space = object.name_space()) {
    const Value* found = name_space->find(name);
    return found ? *found : missing(object, name);
  }
  if (auto method = find_method(run, object, name)) return *std::move(method);
  if (const Dict* dict = object.dict()) {
    run.step(1 + dict->items.size() / 8);
    if (const Value* found = dict->find(name)) return *found;
  }
  return missing(object, name);
}

Value get_item(Run& run, const Value& object, const Value& index) {
  run.step();
  check_defined(run, object);
  if (const Dict* dict = object.dict()) {
    run.step(1 + dict->items.size() / 8);
    if (const Value* found = dict->find(index)) return *found;
  } else if (index.is_int()) {
    if (const Sequence* sequence = object.sequence()) {
      if (const auto at = position_of(index.as_int(), sequence->items.size())) {
        return sequence->items[*at];
      }
    } else if (const Text* text = object.text()) {
      run.step_for_bytes(text->size());
      const auto starts = character_starts(*text);
      if (const auto at = position_of(index.as_int(), starts.size() - 1)) {
        return run.text(text->part(starts[*at], starts[*at + 1]));
      }
    }
  }
  if (const Text* name = index.text()) {
    if (!object.dict()) return get_attribute(run, object, name->bytes());
    if (auto method = find_method(run, object, name->bytes())) return *std::move(method);
  }
  return missing(object, to_str(run, index).bytes());
}

Value get_slice(Run& run, const Value& object, const SliceBounds& bounds) {
  check_defined(run, object);
  if (const Sequence* sequence = object.sequence()) {
    Values items;
    for (const size_t at : slice_positions(run, bounds, sequence->items.size())) {
      items.push_back(sequence->items[at]);
    }
    return run.list(std::move(items), sequence->tuple);
  }
  if (const Text* text = object.text()) {
    run.step_for_bytes(8 * text->size());  // one position each
    const auto starts = character_starts(*text);
    Text result;
    for (const size_t at : slice_positions(run, bounds, starts.size() - 1)) {
      result.append(*text, starts[at], starts[at + 1]);
    }
    return run.text(std::move(result));
  }
  run.fail(std::string("'") + object.type() + "' object cannot be sliced");
}

Value get_path(Run& run, const Value& object, const Value& path) {
  if (path.is_int()) return get_item(run, object, path);
  if (!path.text()) run.fail("an attribute must be a string or an integer");
  Value result = object;
  for (const Text& part : split(*path.text(), ".", -1)) {
    const std::string& name = part.bytes();
    int64_t index = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = parsed.ec == std::errc{} && parsed.ptr == name.data() + name.size();
    result = get_item(run, result, is_index ? Value(index) : run.text(part));
  }
  return result;
}

}  // namespace flexllm::tokenizer::jinja
