#include "tokenizer/jinja/evaluator.h"

#include <algorithm>
#include <utility>

#include "tokenizer/jinja/access.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/predicates.h"

namespace flexllm::tokenizer::jinja {

// Counts one level of the walk while it lives.
class Evaluator::Nest {
 public:
  explicit Nest(Evaluator& evaluator) : evaluator_(evaluator) {
    evaluator_.run_.step();
    evaluator_.run_.check_depth(evaluator_.depth_ + 1);
    ++evaluator_.depth_;
  }
  ~Nest() { --evaluator_.depth_; }
  Nest(const Nest&) = delete;
  Nest& operator=(const Nest&) = delete;

 private:
  Evaluator& evaluator_;
};

// A new scope within `parent` while it lives.
class Evaluator::InnerScope {
 public:
  InnerScope(Evaluator& evaluator, std::shared_ptr<const Scope> parent)
      : evaluator_(evaluator),
        outer_(std::exchange(evaluator.scope_, std::make_shared<Scope>(std::move(parent)))) {}
  ~InnerScope() { evaluator_.scope_ = outer_; }
  InnerScope(const InnerScope&) = delete;
  InnerScope& operator=(const InnerScope&) = delete;

 private:
  Evaluator& evaluator_;
  std::shared_ptr<Scope> outer_;
};

Evaluator::Evaluator(Run& run) : run_(run), scope_(std::make_shared<Scope>(nullptr)) {}

Text Evaluator::render(const Body& body) {
  execute(body);
  return std::move(out_);
}

Evaluator::Flow Evaluator::execute(const Body& body) {
  const Nest nest(*this);
  for (const Statement& statement : body) {
    run_.set_line(statement.line);
    run_.step();
    const Flow flow =
        std::visit([&](const auto& node) { return execute_node(node); }, statement.node);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const Output& node) {
  run_.step_for_bytes(node.text.text()->size());
  out_.append(*node.text.text());
  run_.check_output(out_.size());
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const Print& node) {
  append_str(run_, out_, evaluate(*node.value));
  run_.check_output(out_.size());
  return Flow::next;
}

std::shared_ptr<const Sequence> Evaluator::elements_of(const For& node) {
  auto elements = run_.iterate(evaluate(*node.iterable));
  if (!node.condition) return elements;
  Values kept;
  for (const Value& element : elements->items) {
    const InnerScope inner(*this, scope_);
    assign(node.targets, element);
    if (evaluate(*node.condition).truthy()) kept.push_back(element);
  }
  return run_.iterate(run_.list(std::move(kept)));
}

Evaluator::Flow Evaluator::execute_node(const For& node) {
  const auto elements = elements_of(node);
  if (elements->items.empty()) {
    const InnerScope inner(*this, scope_);
    return execute(node.otherwise);
  }
  for (size_t i = 0; i < elements->items.size(); ++i) {
    const InnerScope inner(*this, scope_);
    run_.check_depth(elements->depth + 1);
    scope_->set("loop", std::make_shared<const Loop>(Loop{elements, i}));
    assign(node.targets, elements->items[i]);
    if (execute(node.body) == Flow::break_loop) break;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const If& node) {
  for (const auto& [test, body] : node.branches) {
    if (evaluate(*test).truthy()) return execute(body);
  }
  return execute(node.otherwise);
}

void Evaluator::assign(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) {
    scope_->set(targets.front(), value);
    return;
  }
  const auto elements = run_.iterate(value);
  if (elements->items.size() != targets.size()) {
    run_.fail("expected " + std::to_string(targets.size()) + " values to unpack, not " +
              std::to_string(elements->items.size()));
  }
  for (size_t i = 0; i < targets.size(); ++i) scope_->set(targets[i], elements->items[i]);
}

Evaluator::Flow Evaluator::execute_node(const Set& node) {
  assign(node.targets, evaluate(*node.value));
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const SetAttribute& node) {
  const Value* found = scope_->find(node.name);
  Namespace* name_space = found ? found->name_space() : nullptr;
  if (name_space == nullptr) run_.fail("cannot assign attribute on non-namespace object");
  Value value = evaluate(*node.value);
  name_space->set(node.attribute, std::move(value));
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const SetBlock& node) {
  scope_->set(node.name, capture(node.body));
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_node(const Group& node) {
  const InnerScope inner(*this, scope_);
  return execute(node.body);
}

Value Evaluator::capture(const Body& body) {
  const InnerScope inner(*this, scope_);
  Text outer = std::exchange(out_, Text());
  execute(body);
  return run_.text(std::exchange(out_, std::move(outer)));
}

Evaluator::Flow Evaluator::execute_node(const MacroDefinition& node) {
  // A macro runs in a scope within that of its definition, and does not keep that alive.
  const std::weak_ptr<Scope> home = scope_;
  auto call = [this, &node, home](Run& run, const Arguments& arguments) {
    const auto parent = home.lock();
    if (!parent) run.fail("the macro '" + node.name + "' is called outside its block");
    const InnerScope inner(*this, parent);
    return call_macro(node, arguments);
  };
  scope_->set(node.name, std::make_shared<const Function>(Function{node.name, call, 1}));
  return Flow::next;
}

Value Evaluator::call_macro(const MacroDefinition& macro, const Arguments& arguments) {
  if (arguments.positional.size() > macro.parameters.size()) {
    run_.fail("macro '" + macro.name + "' takes not more than " +
              std::to_string(macro.parameters.size()) + " argument(s)");
  }
  for (const auto& [name, value] : arguments.named) {
    const bool known = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                   [&](const auto& parameter) { return parameter.name == name; });
    if (!known) run_.fail("macro '" + macro.name + "' takes no keyword argument '" + name + "'");
  }
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& parameter = macro.parameters[i];
    if (const Value* given = arguments.find(i, parameter.name)) {
      scope_->set(parameter.name, *given);
    } else if (parameter.fallback) {
      scope_->set(parameter.name, evaluate(*parameter.fallback));
    } else {
      scope_->set(parameter.name, Undefined{"parameter '" + parameter.name + "' was not provided"});
    }
  }
  return capture(macro.body);
}

Value Evaluator::evaluate(const Expr& expr) {
  const Nest nest(*this);
  run_.set_line(expr.line);
  return std::visit([&](const auto& node) { return evaluate_node(node); }, expr.node);
}

Value Evaluator::evaluate_node(const Name& node) {
  if (const Value* found = scope_->find(node.name)) return *found;
  return Undefined{"'" + node.name + "' is undefined"};
}

Value Evaluator::evaluate_node(const ListOf& node) {
  Values items;
  for (const ExprPtr& item : node.items) items.push_back(evaluate(*item));
  return run_.list(std::move(items), node.tuple);
}

Value Evaluator::evaluate_node(const DictOf& node) {
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [key, value] : node.items) {
    Value evaluated_key = evaluate(*key);
    items.emplace_back(std::move(evaluated_key), evaluate(*value));
  }
  return run_.dict(std::move(items));
}

Value Evaluator::evaluate_node(const Attribute& node) {
  return get_attribute(run_, evaluate(*node.object), node.name);
}

Value Evaluator::evaluate_node(const Item& node) {
  const Value object = evaluate(*node.object);
  return get_item(run_, object, evaluate(*node.index));
}

Value Evaluator::evaluate_node(const Slice& node) {
  const Value object = evaluate(*node.object);
  const auto bound = [&](const ExprPtr& expr) -> std::optional<int64_t> {
    if (!expr) return std::nullopt;
    const Value value = evaluate(*expr);
    if (value.is_none()) return std::nullopt;
    if (!value.is_int()) run_.fail("slice indices must be integers or None");
    return value.as_int();
  };
  SliceBounds bounds;
  bounds.start = bound(node.start);
  bounds.stop = bound(node.stop);
  bounds.step = bound(node.step);
  return get_slice(run_, object, bounds);
}

Arguments Evaluator::evaluate_arguments(const CallArguments& arguments) {
  Arguments result;
  for (const ExprPtr& argument : arguments.positional) {
    result.positional.push_back(evaluate(*argument));
  }
  for (const auto& [name, argument] : arguments.named) {
    result.named.emplace_back(name, evaluate(*argument));
  }
  return result;
}

Value Evaluator::evaluate_node(const Call& node) {
  const Value callee = evaluate(*node.callee);
  const size_t line = run_.line();
  const Arguments arguments = evaluate_arguments(node.arguments);
  run_.set_line(line);
  if (const auto* undefined = std::get_if<Undefined>(&callee.storage())) {
    run_.fail(undefined->message);
  }
  if (!callee.function()) run_.fail(std::string("'") + callee.type() + "' object is not callable");
  return callee.function()->call(run_, arguments);
}

Value Evaluator::evaluate_node(const Filtered& node) {
  const Value input = evaluate(*node.input);
  return apply_filter(run_, *node.filter, input, evaluate_arguments(node.arguments));
}

Value Evaluator::evaluate_node(const Tested& node) {
  const Value input = evaluate(*node.input);
  return run_test(run_, *node.test, input, evaluate_arguments(node.arguments)) != node.negated;
}

Value Evaluator::evaluate_node(const Unary& node) {
  const Value operand = evaluate(*node.operand);
  switch (node.op) {
    case Unary::Op::logical_not:
      return !operand.truthy();
    case Unary::Op::negative:
      return negative(run_, operand);
    case Unary::Op::positive:
      break;
  }
  if (!operand.is_number()) {
    run_.fail(std::string("bad operand type for unary +: '") + operand.type() + "'");
  }
  return operand;
}

Value Evaluator::evaluate_node(const Binary& node) {
  Value left = evaluate(*node.left);
  if (node.op == Binary::Op::logical_and) return left.truthy() ? evaluate(*node.right) : left;
  if (node.op == Binary::Op::logical_or) return left.truthy() ? left : evaluate(*node.right);
  return arithmetic(run_, node.op, left, evaluate(*node.right));
}

Value Evaluator::evaluate_node(const Compare& node) {
  Value left = evaluate(*node.first);
  for (const auto& [op, operand] : node.rest) {
    Value right = evaluate(*operand);
    if (!compare(run_, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_node(const Concat& node) {
  Text result;
  for (const ExprPtr& part : node.parts) append_str(run_, result, evaluate(*part));
  return run_.text(std::move(result));
}

Value Evaluator::evaluate_node(const Conditional& node) {
  if (evaluate(*node.test).truthy()) return evaluate(*node.yes);
  if (node.no) return evaluate(*node.no);
  return Undefined{"the inline if-expression evaluated to false and no else section was defined"};
}

}  // namespace flexllm::tokenizer::jinja
