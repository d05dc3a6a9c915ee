// The values of a rendering, with Python's meaning. Values are immutable, except namespaces; they
// are made through a Run, which counts what they cost. One thread uses a Run and its values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja/text.h"

namespace flexllm::tokenizer::jinja {

class Value;
class Run;
struct Sequence;
struct Dict;
struct Namespace;
struct Loop;
struct Function;

struct Undefined {
  std::string message;  // what to say when it is used: "'tools' is undefined"
};
struct None {};

// The kinds that share their contents are reference counted.
class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                               std::shared_ptr<Namespace>, std::shared_ptr<const Loop>,
                               std::shared_ptr<const Function>>;

  Value() : storage_(None{}) {}
  Value(Undefined value) : storage_(std::move(value)) {}
  Value(bool value) : storage_(value) {}
  Value(int64_t value) : storage_(value) {}
  Value(double value) : storage_(value) {}
  template <typename T>
  Value(std::shared_ptr<T> value) : storage_(std::move(value)) {}

  const Storage& storage() const { return storage_; }

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_int() const { return is_bool() || std::holds_alternative<int64_t>(storage_); }
  bool is_number() const { return is_int() || is_float(); }

  // nullptr when it is of another kind.
  const Text* text() const { return shared<const Text>(); }
  const Sequence* sequence() const { return shared<const Sequence>(); }
  const Dict* dict() const { return shared<const Dict>(); }
  Namespace* name_space() const { return shared<Namespace>(); }
  const Loop* loop() const { return shared<const Loop>(); }
  const Function* function() const { return shared<const Function>(); }
  std::shared_ptr<const Text> shared_text() const {
    return std::get<std::shared_ptr<const Text>>(storage_);
  }

  int64_t as_int() const;    // of an int (or bool)
  double as_double() const;  // of a number
  bool truthy() const;       // bool(x)
  size_t depth() const;      // nesting of containers
  const char* type() const;  // Python's name: "str", "list", ...

 private:
  template <typename T>
  T* shared() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&storage_);
    return pointer ? pointer->get() : nullptr;
  }

  Storage storage_;
};

using Values = std::vector<Value>;

struct Sequence {
  Values items;
  bool tuple = false;
  size_t depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion; keys differ
  size_t depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);  // replaces the value of an equal key
};

// namespace(): the one kind that `set` can change.
struct Namespace {
  std::vector<std::pair<std::string, Value>> items;

  Value* find(std::string_view name);
  void set(std::string_view name, Value value);
};

// `loop` inside a for.
struct Loop {
  std::shared_ptr<const Sequence> items;
  size_t index = 0;  // 0-based
};

// Arguments of a call, evaluated.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at this position or of this name; nullptr when it was not given.
  const Value* find(size_t position, std::string_view name) const;
};

// Something that can be called: a global, a method with its object, a macro.
struct Function {
  std::string name;
  std::function<Value(Run&, const Arguments&)> call;
  size_t depth = 1;
};

// == of values that can be keys: numbers, strings, none. Others are equal if they are one object.
bool equal_scalars(const Value& a, const Value& b);

}  // namespace flexllm::tokenizer::jinja
