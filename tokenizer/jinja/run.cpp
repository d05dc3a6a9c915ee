#include "tokenizer/jinja/run.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "tokenizer/utf8.h"

namespace flexllm::tokenizer::jinja {
namespace {

constexpr auto kLimit = TemplateError::Kind::limit;

}  // namespace

Run::~Run() {
  for (const auto& name_space : namespaces_) name_space->items.clear();
}

void Run::step(uint64_t count) {
  steps_ += count;
  if (steps_ > limits_.steps) throw TemplateError(kLimit, line_, "rendering takes too many steps");
}

void Run::check_depth(size_t depth) const {
  if (depth > limits_.depth) throw TemplateError(kLimit, line_, "nested too deeply");
}

void Run::check_output(size_t bytes) const {
  if (bytes > limits_.output_bytes) throw TemplateError(kLimit, line_, "the output is too long");
}

void Run::fail(const std::string& what) const {
  throw TemplateError(TemplateError::Kind::render, line_, what);
}

void Run::refuse(const std::string& what) const {
  throw TemplateError(TemplateError::Kind::raised, line_, what);
}

Value Run::text(Text text) {
  step_for_bytes(text.size());
  return std::make_shared<const Text>(std::move(text));
}

Value Run::list(Values items, bool tuple) {
  step(1 + items.size());
  size_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  check_depth(depth + 1);
  return std::make_shared<const Sequence>(Sequence{std::move(items), tuple, depth + 1});
}

Value Run::dict(std::vector<std::pair<Value, Value>> items) {
  Dict result;
  for (auto& [key, value] : items) {
    step(1 + result.items.size() / 4);  // the search below is linear
    if (key.sequence() != nullptr || key.dict() != nullptr) {
      fail(std::string("unhashable type: '") + key.type() + "'");
    }
    result.set(std::move(key), std::move(value));
  }
  check_depth(result.depth);
  return std::make_shared<const Dict>(std::move(result));
}

Value Run::name_space(std::vector<std::pair<std::string, Value>> items) {
  step(1 + items.size());
  auto result = std::make_shared<Namespace>();
  for (auto& [name, value] : items) result->set(name, std::move(value));
  namespaces_.push_back(result);
  return result;
}

Value Run::method(const Value& self, std::string_view name,
                  Value (*call)(Run&, const Value&, const Arguments&)) {
  step();
  check_depth(self.depth() + 1);
  return std::make_shared<const Function>(Function{
      std::string(name),
      [self, call](Run& run, const Arguments& arguments) { return call(run, self, arguments); },
      self.depth() + 1});
}

Value Run::from_json(const nlohmann::ordered_json& json, size_t depth) {
  check_depth(depth);
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null:
    case Type::discarded:
    case Type::binary:
      return {};
    case Type::boolean:
      return json.get<bool>();
    case Type::number_integer:
      return json.get<int64_t>();
    case Type::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > uint64_t{std::numeric_limits<int64_t>::max()}) {
        return static_cast<double>(number);
      }
      return static_cast<int64_t>(number);
    }
    case Type::number_float:
      return json.get<double>();
    case Type::string:
      return text(to_valid_utf8(json.get_ref<const std::string&>()), Origin::from_caller);
    case Type::array: {
      Values items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return list(std::move(items));
    }
    case Type::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [key, value] : json.items()) {
        items.emplace_back(text(to_valid_utf8(key), Origin::from_caller),
                           from_json(value, depth + 1));
      }
      return dict(std::move(items));
    }
  }
  return {};
}

std::shared_ptr<const Sequence> Run::iterate(const Value& value) {
  if (const auto* sequence = std::get_if<std::shared_ptr<const Sequence>>(&value.storage())) {
    return *sequence;
  }
  Values items;
  if (const Text* text_value = value.text()) {
    const std::string& bytes = text_value->bytes();
    for (size_t at = 0; at < bytes.size();) {
      const size_t begin = at;
      read_code_point(bytes, at);
      items.push_back(text(text_value->part(begin, at)));
    }
  } else if (const Dict* dict_value = value.dict()) {
    for (const auto& item : dict_value->items) items.push_back(item.first);
  } else if (!value.is_undefined()) {
    fail(std::string("'") + value.type() + "' object is not iterable");
  }
  return std::get<std::shared_ptr<const Sequence>>(list(std::move(items)).storage());
}

}  // namespace flexllm::tokenizer::jinja
