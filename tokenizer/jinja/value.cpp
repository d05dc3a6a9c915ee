#include "tokenizer/jinja/value.h"

#include <algorithm>

namespace flexllm::tokenizer::jinja {
namespace {

template <typename... Fs>
struct Overload : Fs... {
  using Fs::operator()...;
};

}  // namespace

int64_t Value::as_int() const {
  if (const auto* value = std::get_if<bool>(&storage_)) return *value ? 1 : 0;
  return std::get<int64_t>(storage_);
}

double Value::as_double() const {
  if (const auto* value = std::get_if<double>(&storage_)) return *value;
  return static_cast<double>(as_int());
}

bool Value::truthy() const {
  return std::visit(
      Overload{[](const Undefined&) { return false; }, [](const None&) { return false; },
               [](bool value) { return value; }, [](int64_t value) { return value != 0; },
               [](double value) { return value != 0.0; },
               [](const std::shared_ptr<const Text>& value) { return !value->empty(); },
               [](const std::shared_ptr<const Sequence>& value) { return !value->items.empty(); },
               [](const std::shared_ptr<const Dict>& value) { return !value->items.empty(); },
               [](const auto&) { return true; }},
      storage_);
}

size_t Value::depth() const {
  if (const Sequence* value = sequence()) return value->depth;
  if (const Dict* value = dict()) return value->depth;
  if (const Loop* value = loop()) return value->items->depth + 1;
  if (const Function* value = function()) return value->depth;
  return 0;
}

const char* Value::type() const {
  return std::visit(Overload{[](const Undefined&) { return "Undefined"; },
                             [](const None&) { return "NoneType"; }, [](bool) { return "bool"; },
                             [](int64_t) { return "int"; }, [](double) { return "float"; },
                             [](const std::shared_ptr<const Text>&) { return "str"; },
                             [](const std::shared_ptr<const Sequence>& value) {
                               return value->tuple ? "tuple" : "list";
                             },
                             [](const std::shared_ptr<const Dict>&) { return "dict"; },
                             [](const std::shared_ptr<Namespace>&) { return "Namespace"; },
                             [](const std::shared_ptr<const Loop>&) { return "LoopContext"; },
                             [](const std::shared_ptr<const Function>&) { return "function"; }},
                    storage_);
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : items) {
    if (equal_scalars(name, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name.text() != nullptr && name.text()->bytes() == key) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  depth = std::max(depth, value.depth() + 1);
  for (auto& [name, present] : items) {
    if (equal_scalars(name, key)) {
      present = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : items) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  if (Value* present = find(name)) {
    *present = std::move(value);
  } else {
    items.emplace_back(name, std::move(value));
  }
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool equal_scalars(const Value& a, const Value& b) {
  if (a.is_int() && b.is_int()) return a.as_int() == b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.text() && b.text()) return a.text()->bytes() == b.text()->bytes();
  if ((a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined())) return true;
  return std::visit(
      [](const auto& left, const auto& right) {
        using Left = std::decay_t<decltype(left)>;
        if constexpr (std::is_same_v<Left, std::decay_t<decltype(right)>> &&
                      requires { left.get() == right.get(); }) {
          return left.get() == right.get();
        } else {
          return false;
        }
      },
      a.storage(), b.storage());
}

}  // namespace flexllm::tokenizer::jinja
