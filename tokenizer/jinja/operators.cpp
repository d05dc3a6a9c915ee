#include "tokenizer/jinja/operators.h"

#include <algorithm>
#include <cmath>

namespace flexllm::tokenizer::jinja {
namespace {

using Op = Binary::Op;

const char* symbol(Op op) {
  switch (op) {
    case Op::add:
      return "+";
    case Op::subtract:
      return "-";
    case Op::multiply:
      return "*";
    case Op::divide:
      return "/";
    case Op::floor_divide:
      return "//";
    case Op::modulo:
      return "%";
    case Op::power:
      return "**";
    default:
      return "and/or";
  }
}

void check_defined(Run& run, const Value& value) {
  if (const auto* undefined = std::get_if<Undefined>(&value.storage())) {
    run.fail(undefined->message);
  }
}

[[noreturn]] void fail_types(Run& run, const char* op, const Value& left, const Value& right) {
  check_defined(run, left);
  check_defined(run, right);
  run.fail(std::string("unsupported operand types for ") + op + ": '" + left.type() + "' and '" +
           right.type() + "'");
}

// `result` is read after `overflow` was computed, which writes it.
Value checked(Run& run, bool overflow, const int64_t& result) {
  if (overflow) run.fail("an integer leaves the range of 64 bits");
  return result;
}

Value integer_power(Run& run, int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (bool overflow = false; exponent > 0 && base != 0; --exponent) {
    if (base == 1) return int64_t{1};
    if (base == -1) return exponent % 2 == 0 ? result : -result;
    overflow = __builtin_mul_overflow(result, base, &result);
    if (overflow) checked(run, true, 0);
  }
  return base == 0 && exponent > 0 ? int64_t{0} : result;
}

Value integers(Run& run, Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::add:
      return checked(run, __builtin_add_overflow(a, b, &result), result);
    case Op::subtract:
      return checked(run, __builtin_sub_overflow(a, b, &result), result);
    case Op::multiply:
      return checked(run, __builtin_mul_overflow(a, b, &result), result);
    case Op::power:
      if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
      return integer_power(run, a, b);
    default:
      break;
  }
  if (b == 0) run.fail("division by zero");
  if (op == Op::divide) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) {  // the one quotient that can overflow
    if (op == Op::modulo) return int64_t{0};
    return checked(run, __builtin_sub_overflow(0, a, &result), result);
  }
  const bool inexact_negative = a % b != 0 && (a < 0) != (b < 0);  // Python rounds down
  if (op == Op::floor_divide) return a / b - (inexact_negative ? 1 : 0);
  return a % b + (inexact_negative ? b : 0);
}

Value floats(Run& run, Op op, double a, double b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::subtract:
      return a - b;
    case Op::multiply:
      return a * b;
    case Op::power:
      return std::pow(a, b);
    default:
      break;
  }
  if (b == 0) run.fail("division by zero");
  if (op == Op::divide) return a / b;
  if (op == Op::floor_divide) return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value joined(Run& run, const Value& left, const Value& right) {
  if (left.text() && right.text()) {
    run.step_for_bytes(left.text()->size());
    Text result = *left.text();
    result.append(*right.text());
    return run.text(std::move(result));
  }
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (a && b && a->tuple == b->tuple) {
    run.step(a->items.size() + b->items.size());
    Values items = a->items;
    items.insert(items.end(), b->items.begin(), b->items.end());
    return run.list(std::move(items), a->tuple);
  }
  fail_types(run, "+", left, right);
}

Value repeated(Run& run, const Value& object, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (const Text* text = object.text()) {
    Text result;
    for (size_t i = 0; i < times; ++i) {
      run.step_for_bytes(text->size());
      result.append(*text);
    }
    return run.text(std::move(result));
  }
  const Sequence& sequence = *object.sequence();
  Values items;
  for (size_t i = 0; i < times; ++i) {
    run.step(1 + sequence.items.size());
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return run.list(std::move(items), sequence.tuple);
}

bool equal_dicts(Run& run, const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
    run.step(1 + b.items.size() / 8);
    const Value* other = b.find(item.first);
    return other != nullptr && equal(run, item.second, *other);
  });
}

bool contains(Run& run, const Value& container, const Value& element) {
  if (const Text* text = container.text()) {
    if (!element.text()) {
      run.fail(std::string("'in <string>' requires string as left operand, not ") + element.type());
    }
    run.step_for_bytes(text->size());
    return text->bytes().find(element.text()->bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    run.step(1 + dict->items.size() / 8);
    return dict->find(element) != nullptr;
  }
  const auto items = run.iterate(container);
  run.step(1 + items->items.size() / 8);
  return std::any_of(items->items.begin(), items->items.end(),
                     [&](const Value& item) { return equal(run, item, element); });
}

}  // namespace

Value arithmetic(Run& run, Op op, const Value& left, const Value& right) {
  if (left.is_int() && right.is_int()) return integers(run, op, left.as_int(), right.as_int());
  if (left.is_number() && right.is_number()) {
    return floats(run, op, left.as_double(), right.as_double());
  }
  if (op == Op::add) return joined(run, left, right);
  if (op == Op::multiply) {
    if ((left.text() || left.sequence()) && right.is_int()) {
      return repeated(run, left, right.as_int());
    }
    if (left.is_int() && (right.text() || right.sequence())) {
      return repeated(run, right, left.as_int());
    }
  }
  fail_types(run, symbol(op), left, right);
}

Value negative(Run& run, const Value& operand) {
  check_defined(run, operand);
  if (operand.is_int()) return integers(run, Op::subtract, 0, operand.as_int());
  if (operand.is_float()) return -operand.as_double();
  run.fail(std::string("bad operand type for unary -: '") + operand.type() + "'");
}

bool equal(Run& run, const Value& left, const Value& right) {
  run.step();
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (a && b) {
    return a->tuple == b->tuple &&
           std::equal(a->items.begin(), a->items.end(), b->items.begin(), b->items.end(),
                      [&](const Value& x, const Value& y) { return equal(run, x, y); });
  }
  if (left.dict() && right.dict()) return equal_dicts(run, *left.dict(), *right.dict());
  return equal_scalars(left, right);
}

bool less(Run& run, const Value& left, const Value& right) {
  run.step();
  if (left.is_int() && right.is_int()) return left.as_int() < right.as_int();
  if (left.is_number() && right.is_number()) return left.as_double() < right.as_double();
  if (left.text() && right.text()) return left.text()->bytes() < right.text()->bytes();
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (!a || !b || a->tuple != b->tuple) fail_types(run, "<", left, right);
  for (size_t i = 0; i < std::min(a->items.size(), b->items.size()); ++i) {
    if (!equal(run, a->items[i], b->items[i])) return less(run, a->items[i], b->items[i]);
  }
  return a->items.size() < b->items.size();
}

bool compare(Run& run, Compare::Op op, const Value& left, const Value& right) {
  switch (op) {
    case Compare::Op::equal:
      return equal(run, left, right);
    case Compare::Op::not_equal:
      return !equal(run, left, right);
    case Compare::Op::less:
      return less(run, left, right);
    case Compare::Op::less_equal:
      return less(run, left, right) || equal(run, left, right);
    case Compare::Op::greater:
      return less(run, right, left);
    case Compare::Op::greater_equal:
      return less(run, right, left) || equal(run, left, right);
    case Compare::Op::in:
      return contains(run, right, left);
    case Compare::Op::not_in:
      return !contains(run, right, left);
  }
  return false;
}

}  // namespace flexllm::tokenizer::jinja
