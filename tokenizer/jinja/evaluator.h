// Walks a syntax tree and writes what it says. One Evaluator renders once, on one thread; trees are
// shared.
#pragma once

#include <memory>
#include <string_view>

#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/run.h"
#include "tokenizer/jinja/scope.h"

namespace flexllm::tokenizer::jinja {

class Evaluator {
 public:
  // `run` and the trees that are rendered outlive the evaluator and its values.
  explicit Evaluator(Run& run);

  // A variable that the template sees.
  void set_variable(std::string_view name, Value value) { scope_->set(name, std::move(value)); }

  Text render(const Body& body);

 private:
  enum class Flow { next, break_loop, continue_loop };
  class Nest;
  class InnerScope;

  Flow execute(const Body& body);
  Flow execute_node(const Output& node);
  Flow execute_node(const Print& node);
  Flow execute_node(const For& node);
  Flow execute_node(const If& node);
  Flow execute_node(const Set& node);
  Flow execute_node(const SetAttribute& node);
  Flow execute_node(const SetBlock& node);
  Flow execute_node(const MacroDefinition& node);
  Flow execute_node(const Group& node);
  Flow execute_node(const Break&) { return Flow::break_loop; }
  Flow execute_node(const Continue&) { return Flow::continue_loop; }

  std::shared_ptr<const Sequence> elements_of(const For& node);
  void assign(const std::vector<std::string>& targets, const Value& value);
  Value capture(const Body& body);
  Value call_macro(const MacroDefinition& macro, const Arguments& arguments);

  Value evaluate(const Expr& expr);
  Value evaluate_node(const Literal& node) { return node.value; }
  Value evaluate_node(const Name& node);
  Value evaluate_node(const ListOf& node);
  Value evaluate_node(const DictOf& node);
  Value evaluate_node(const Attribute& node);
  Value evaluate_node(const Item& node);
  Value evaluate_node(const Slice& node);
  Value evaluate_node(const Call& node);
  Value evaluate_node(const Filtered& node);
  Value evaluate_node(const Tested& node);
  Value evaluate_node(const Unary& node);
  Value evaluate_node(const Binary& node);
  Value evaluate_node(const Compare& node);
  Value evaluate_node(const Concat& node);
  Value evaluate_node(const Conditional& node);

  Arguments evaluate_arguments(const CallArguments& arguments);

  Run& run_;
  std::shared_ptr<Scope> scope_;
  Text out_;  // of the template, or of the macro or block whose text is being taken
  size_t depth_ = 0;
};

}  // namespace flexllm::tokenizer::jinja
