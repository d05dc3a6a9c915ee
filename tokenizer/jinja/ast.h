// The syntax tree of a template. Built by the parser, then immutable: any number of renderings may
// walk it at the same time. The parser bounds its depth.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace flexllm::tokenizer::jinja {

struct Filter;
struct Test;

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct ListOf {
  std::vector<ExprPtr> items;
  bool tuple;
};
struct DictOf {
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
};
struct Attribute {  // object.name
  ExprPtr object;
  std::string name;
};
struct Item {  // object[index]
  ExprPtr object;
  ExprPtr index;
};
struct Slice {  // object[start:stop:step], each may be nullptr
  ExprPtr object;
  ExprPtr start;
  ExprPtr stop;
  ExprPtr step;
};
struct Call {
  ExprPtr callee;
  CallArguments arguments;
};
struct Filtered {  // input | filter
  ExprPtr input;
  const Filter* filter;
  CallArguments arguments;
};
struct Tested {  // input is [not] test
  ExprPtr input;
  const Test* test;
  CallArguments arguments;
  bool negated;
};
struct Unary {
  enum class Op { negative, positive, logical_not } op;
  ExprPtr operand;
};
struct Binary {
  enum class Op {
    add,
    subtract,
    multiply,
    divide,
    floor_divide,
    modulo,
    power,
    logical_and,
    logical_or
  } op;
  ExprPtr left;
  ExprPtr right;
};
struct Compare {  // first op operand op operand ..., as a chain
  enum class Op { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };
  ExprPtr first;
  std::vector<std::pair<Op, ExprPtr>> rest;
};
struct Concat {  // a ~ b ~ ...
  std::vector<ExprPtr> parts;
};
struct Conditional {  // yes if test else no; without `else`, `no` is nullptr
  ExprPtr test;
  ExprPtr yes;
  ExprPtr no;
};

struct Expr {
  size_t line;
  size_t depth;  // of the tree below, itself included
  std::variant<Literal, Name, ListOf, DictOf, Attribute, Item, Slice, Call, Filtered, Tested, Unary,
               Binary, Compare, Concat, Conditional>
      node;
};

struct Statement;
using Body = std::vector<Statement>;

struct Output {  // text between tags
  Value text;
};
struct Print {  // {{ value }}
  ExprPtr value;
};
struct For {
  std::vector<std::string> targets;  // more than one unpack each element
  ExprPtr iterable;
  ExprPtr condition;  // nullptr: every element
  Body body;
  Body otherwise;  // when there was no element
};
struct If {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};
struct Set {
  std::vector<std::string> targets;
  ExprPtr value;
};
struct SetAttribute {  // {% set name.attribute = value %}
  std::string name;
  std::string attribute;
  ExprPtr value;
};
struct SetBlock {  // {% set name %} body {% endset %}
  std::string name;
  Body body;
};
struct MacroDefinition {
  struct Parameter {
    std::string name;
    ExprPtr fallback;  // nullptr: undefined when not given
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};
struct Group {  // {% generation %} body {% endgeneration %}: only marks its text
  Body body;
};
struct Break {};
struct Continue {};

struct Statement {
  size_t line;
  std::variant<Output, Print, For, If, Set, SetAttribute, SetBlock, MacroDefinition, Group, Break,
               Continue>
      node;
};

}  // namespace flexllm::tokenizer::jinja
