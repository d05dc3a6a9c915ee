#include "tokenizer/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/predicates.h"

namespace flexllm::tokenizer::jinja {
namespace {

using Kind = Lexeme::Kind;

// The depth of the deepest child of a node.
struct Deepest {
  size_t depth = 0;

  void operator()(const ExprPtr& child) { depth = child ? std::max(depth, child->depth) : depth; }
  void operator()(const CallArguments& arguments) {
    for (const auto& child : arguments.positional) (*this)(child);
    for (const auto& [name, child] : arguments.named) (*this)(child);
  }
};

void visit_children(const Literal&, Deepest&) {}
void visit_children(const Name&, Deepest&) {}
void visit_children(const ListOf& node, Deepest& visit) {
  for (const auto& child : node.items) visit(child);
}
void visit_children(const DictOf& node, Deepest& visit) {
  for (const auto& [key, value] : node.items) visit(key), visit(value);
}
void visit_children(const Attribute& node, Deepest& visit) { visit(node.object); }
void visit_children(const Item& node, Deepest& visit) { visit(node.object), visit(node.index); }
void visit_children(const Slice& node, Deepest& visit) {
  visit(node.object), visit(node.start), visit(node.stop), visit(node.step);
}
void visit_children(const Call& node, Deepest& visit) { visit(node.callee), visit(node.arguments); }
void visit_children(const Filtered& node, Deepest& visit) {
  visit(node.input), visit(node.arguments);
}
void visit_children(const Tested& node, Deepest& visit) {
  visit(node.input), visit(node.arguments);
}
void visit_children(const Unary& node, Deepest& visit) { visit(node.operand); }
void visit_children(const Binary& node, Deepest& visit) { visit(node.left), visit(node.right); }
void visit_children(const Compare& node, Deepest& visit) {
  visit(node.first);
  for (const auto& [op, child] : node.rest) visit(child);
}
void visit_children(const Concat& node, Deepest& visit) {
  for (const auto& child : node.parts) visit(child);
}
void visit_children(const Conditional& node, Deepest& visit) {
  visit(node.test), visit(node.yes), visit(node.no);
}

}  // namespace

Value literal_text(std::string_view text) {
  return std::make_shared<const Text>(text, Origin::from_template);
}

bool is_constant_name(std::string_view name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
         name == "None";
}

const Lexeme& Stream::expect(Kind kind, const std::string& what) {
  if (current().kind != kind) fail("expected " + what);
  return take();
}

void Stream::expect_symbol(std::string_view symbol) {
  if (!take_symbol(symbol)) fail("expected '" + std::string(symbol) + "'");
}

void Stream::expect_name(std::string_view name) {
  if (!take_name(name)) fail("expected '" + std::string(name) + "'");
}

void Stream::fail(const std::string& what) const {
  const Lexeme& here = current();
  const std::string found = here.kind == Kind::end         ? "the end of the template"
                            : here.kind == Kind::block_end ? "'%}'"
                            : here.kind == Kind::print_end ? "'}}'"
                                                           : "'" + here.text.substr(0, 40) + "'";
  throw TemplateError(TemplateError::Kind::syntax, here.line, what + ", at " + found);
}

void Stream::fail_at_depth() const {
  throw TemplateError(TemplateError::Kind::limit, current().line, "nested too deeply");
}

template <typename Node>
ExprPtr ExpressionParser::make(size_t line, Node node) const {
  Deepest deepest;
  visit_children(node, deepest);
  if (deepest.depth >= stream_.depth_limit()) stream_.fail_at_depth();
  return ExprPtr(new Expr{line, deepest.depth + 1, std::move(node)});
}

ExprPtr ExpressionParser::parse(bool with_conditional) {
  const Stream::Nest nest(stream_);
  ExprPtr result = parse_or();
  while (with_conditional && stream_.at_name("if")) {
    const size_t line = stream_.take().line;
    ExprPtr test = parse_or();
    ExprPtr no;
    if (stream_.take_name("else")) no = parse();
    result = make(line, Conditional{std::move(test), std::move(result), std::move(no)});
  }
  return result;
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional) {
  const size_t line = stream_.current().line;
  ExprPtr first = parse(with_conditional);
  if (!stream_.at_symbol(",")) return first;
  ListOf tuple{{}, true};
  tuple.items.push_back(std::move(first));
  while (stream_.take_symbol(",")) {
    const Kind kind = stream_.current().kind;
    if (kind == Kind::print_end || kind == Kind::block_end || stream_.at_symbol(")")) break;
    tuple.items.push_back(parse(with_conditional));
  }
  return make(line, std::move(tuple));
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (stream_.at_name("or")) {
    const size_t line = stream_.take().line;
    left = make(line, Binary{Binary::Op::logical_or, std::move(left), parse_and()});
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (stream_.at_name("and")) {
    const size_t line = stream_.take().line;
    left = make(line, Binary{Binary::Op::logical_and, std::move(left), parse_not()});
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!stream_.at_name("not")) return parse_compare();
  const Stream::Nest nest(stream_);
  const size_t line = stream_.take().line;
  return make(line, Unary{Unary::Op::logical_not, parse_not()});
}

ExprPtr ExpressionParser::parse_compare() {
  using Op = Compare::Op;
  const auto take_op = [&]() -> std::optional<Op> {
    if (stream_.take_symbol("==")) return Op::equal;
    if (stream_.take_symbol("!=")) return Op::not_equal;
    if (stream_.take_symbol("<")) return Op::less;
    if (stream_.take_symbol("<=")) return Op::less_equal;
    if (stream_.take_symbol(">")) return Op::greater;
    if (stream_.take_symbol(">=")) return Op::greater_equal;
    if (stream_.take_name("in")) return Op::in;
    if (stream_.at_name("not") && stream_.next().kind == Kind::name &&
        stream_.next().text == "in") {
      stream_.take();
      stream_.take();
      return Op::not_in;
    }
    return std::nullopt;
  };
  const size_t line = stream_.current().line;
  Compare result{parse_sum(), {}};
  while (const auto op = take_op()) result.rest.emplace_back(*op, parse_sum());
  if (result.rest.empty()) return std::move(result.first);
  return make(line, std::move(result));
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr left = parse_concat();
  while (stream_.at_symbol("+") || stream_.at_symbol("-")) {
    const Lexeme& op = stream_.take();
    left = make(op.line, Binary{op.text == "+" ? Binary::Op::add : Binary::Op::subtract,
                                std::move(left), parse_concat()});
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  const size_t line = stream_.current().line;
  ExprPtr first = parse_product();
  if (!stream_.at_symbol("~")) return first;
  Concat result;
  result.parts.push_back(std::move(first));
  while (stream_.take_symbol("~")) result.parts.push_back(parse_product());
  return make(line, std::move(result));
}

ExprPtr ExpressionParser::parse_product() {
  const auto take_op = [&]() -> std::optional<Binary::Op> {
    if (stream_.take_symbol("*")) return Binary::Op::multiply;
    if (stream_.take_symbol("/")) return Binary::Op::divide;
    if (stream_.take_symbol("//")) return Binary::Op::floor_divide;
    if (stream_.take_symbol("%")) return Binary::Op::modulo;
    return std::nullopt;
  };
  ExprPtr left = parse_power();
  for (size_t line = stream_.current().line; const auto op = take_op();
       line = stream_.current().line) {
    left = make(line, Binary{*op, std::move(left), parse_power()});
  }
  return left;
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (stream_.at_symbol("**")) {
    const size_t line = stream_.take().line;
    left = make(line, Binary{Binary::Op::power, std::move(left), parse_unary(true)});
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const Stream::Nest nest(stream_);
  const size_t line = stream_.current().line;
  ExprPtr result;
  if (stream_.take_symbol("-")) {
    result = make(line, Unary{Unary::Op::negative, parse_unary(false)});
  } else if (stream_.take_symbol("+")) {
    result = make(line, Unary{Unary::Op::positive, parse_unary(false)});
  } else {
    result = parse_primary();
  }
  result = parse_postfix(std::move(result));
  return with_filters ? parse_filters(std::move(result)) : std::move(result);
}

ExprPtr ExpressionParser::parse_primary() {
  const Lexeme& lexeme = stream_.current();
  switch (lexeme.kind) {
    case Kind::name:
      return parse_name();
    case Kind::integer:
    case Kind::floating:
      return parse_number();
    case Kind::string: {
      std::string text;
      while (stream_.current().kind == Kind::string) text += stream_.take().text;
      return make(lexeme.line, Literal{literal_text(text)});
    }
    default:
      break;
  }
  if (stream_.at_symbol("[")) return parse_list();
  if (stream_.at_symbol("{")) return parse_dict();
  if (!stream_.take_symbol("(")) stream_.fail("expected an expression");
  if (stream_.take_symbol(")")) return make(lexeme.line, ListOf{{}, true});
  ExprPtr inner = parse_tuple();
  stream_.expect_symbol(")");
  return inner;
}

ExprPtr ExpressionParser::parse_name() {
  const Lexeme& lexeme = stream_.take();
  const std::string& name = lexeme.text;
  if (name == "true" || name == "True") return make(lexeme.line, Literal{Value(true)});
  if (name == "false" || name == "False") return make(lexeme.line, Literal{Value(false)});
  if (name == "none" || name == "None") return make(lexeme.line, Literal{Value()});
  return make(lexeme.line, Name{name});
}

ExprPtr ExpressionParser::parse_number() {
  const Lexeme& lexeme = stream_.current();
  const char* begin = lexeme.text.data();
  const char* end = begin + lexeme.text.size();
  Value value;
  std::errc error{};
  if (lexeme.kind == Kind::integer) {
    int64_t number = 0;
    error = std::from_chars(begin, end, number).ec;
    value = number;
  } else {
    double number = 0;
    error = std::from_chars(begin, end, number).ec;
    value = number;
  }
  if (error != std::errc{}) stream_.fail("a number is out of range");
  stream_.take();
  return make(lexeme.line, Literal{std::move(value)});
}

ExprPtr ExpressionParser::parse_list() {
  const size_t line = stream_.take().line;
  ListOf result{{}, false};
  while (!stream_.at_symbol("]")) {
    if (!result.items.empty()) stream_.expect_symbol(",");
    if (stream_.at_symbol("]")) break;
    result.items.push_back(parse());
  }
  stream_.take();
  return make(line, std::move(result));
}

ExprPtr ExpressionParser::parse_dict() {
  const size_t line = stream_.take().line;
  DictOf result;
  while (!stream_.at_symbol("}")) {
    if (!result.items.empty()) stream_.expect_symbol(",");
    if (stream_.at_symbol("}")) break;
    ExprPtr key = parse();
    stream_.expect_symbol(":");
    result.items.emplace_back(std::move(key), parse());
  }
  stream_.take();
  return make(line, std::move(result));
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr object) {
  for (;;) {
    const size_t line = stream_.current().line;
    if (stream_.take_symbol(".")) {
      if (stream_.current().kind == Kind::integer) {
        object = make(line, Item{std::move(object), parse_number()});
      } else {
        const std::string name = stream_.expect(Kind::name, "an attribute").text;
        object = make(line, Attribute{std::move(object), name});
      }
    } else if (stream_.take_symbol("[")) {
      object = parse_subscript(std::move(object));
    } else if (stream_.at_symbol("(")) {
      object = make(line, Call{std::move(object), parse_arguments()});
    } else {
      return object;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const size_t line = stream_.current().line;
  ExprPtr start;
  if (!stream_.at_symbol(":")) {
    start = parse();
    if (stream_.take_symbol("]")) return make(line, Item{std::move(object), std::move(start)});
  }
  stream_.expect_symbol(":");
  const auto part = [&] {
    return stream_.at_symbol(":") || stream_.at_symbol("]") ? ExprPtr() : parse();
  };
  ExprPtr stop = part();
  ExprPtr step;
  if (stream_.take_symbol(":")) step = part();
  stream_.expect_symbol("]");
  return make(line, Slice{std::move(object), std::move(start), std::move(stop), std::move(step)});
}

ExprPtr ExpressionParser::parse_filters(ExprPtr input) {
  for (;;) {
    const size_t line = stream_.current().line;
    if (stream_.take_symbol("|")) {
      input = parse_filter(std::move(input));
    } else if (stream_.take_name("is")) {
      input = parse_test(std::move(input));
    } else if (stream_.at_symbol("(")) {
      input = make(line, Call{std::move(input), parse_arguments()});
    } else {
      return input;
    }
  }
}

ExprPtr ExpressionParser::parse_filter(ExprPtr input) {
  const Lexeme& name = stream_.expect(Kind::name, "the name of a filter");
  const Filter* filter = find_filter(name.text);
  if (filter == nullptr) stream_.fail("no filter named '" + name.text + "'");
  CallArguments arguments;
  if (stream_.at_symbol("(")) arguments = parse_arguments();
  return make(name.line, Filtered{std::move(input), filter, std::move(arguments)});
}

ExprPtr ExpressionParser::parse_test(ExprPtr input) {
  const bool negated = stream_.take_name("not");
  const Lexeme& name = stream_.expect(Kind::name, "the name of a test");
  const Test* test = find_test(name.text);
  if (test == nullptr) stream_.fail("no test named '" + name.text + "'");
  CallArguments arguments;
  const Lexeme& next = stream_.current();
  const bool operand_follows =
      next.kind == Kind::string || next.kind == Kind::integer || next.kind == Kind::floating ||
      stream_.at_symbol("[") || stream_.at_symbol("{") ||
      (next.kind == Kind::name && next.text != "else" && next.text != "or" && next.text != "and" &&
       next.text != "is" && next.text != "if" && next.text != "in" && next.text != "not");
  if (stream_.at_symbol("(")) {
    arguments = parse_arguments();
  } else if (test->parameters > 0 && operand_follows) {
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  return make(name.line, Tested{std::move(input), test, std::move(arguments), negated});
}

CallArguments ExpressionParser::parse_arguments() {
  stream_.expect_symbol("(");
  CallArguments result;
  bool first = true;
  while (!stream_.at_symbol(")")) {
    if (!std::exchange(first, false)) stream_.expect_symbol(",");
    if (stream_.at_symbol(")")) break;
    if (stream_.at_symbol("*") || stream_.at_symbol("**")) {
      stream_.fail("unpacked arguments are not supported");
    }
    if (stream_.current().kind == Kind::name && stream_.next().kind == Kind::symbol &&
        stream_.next().text == "=") {
      std::string name = stream_.take().text;
      stream_.take();
      result.named.emplace_back(std::move(name), parse());
    } else if (result.named.empty()) {
      result.positional.push_back(parse());
    } else {
      stream_.fail("a positional argument follows a named one");
    }
  }
  stream_.take();
  return result;
}

}  // namespace flexllm::tokenizer::jinja
