// The variables of a block and, behind it, of the blocks around it. Scopes live as long as the
// block or a macro call that runs in them; one thread uses them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace flexllm::tokenizer::jinja {

class Scope {
 public:
  explicit Scope(std::shared_ptr<const Scope> parent) : parent_(std::move(parent)) {}

  // In this scope, hiding one of that name further out.
  void set(std::string_view name, Value value) {
    for (auto& [key, present] : names_) {
      if (key == name) {
        present = std::move(value);
        return;
      }
    }
    names_.emplace_back(name, std::move(value));
  }

  // nullptr when no scope has it.
  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
      for (const auto& [key, value] : scope->names_) {
        if (key == name) return &value;
      }
    }
    return nullptr;
  }

 private:
  std::vector<std::pair<std::string, Value>> names_;
  std::shared_ptr<const Scope> parent_;
};

}  // namespace flexllm::tokenizer::jinja
