#include "tokenizer/jinja/predicates.h"

#include <algorithm>
#include <array>

#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace flexllm::tokenizer::jinja {
namespace {

using Op = Compare::Op;

template <Op op>
bool compares(Run& run, const Value& value, const Arguments& arguments) {
  return compare(run, op, value, arguments.positional[0]);
}

int64_t remainder(Run& run, const Value& value, const Value& divisor) {
  const Value rest = arithmetic(run, Binary::Op::modulo, value, divisor);
  return rest.is_int() ? rest.as_int() : (rest.as_double() == 0 ? 0 : 1);
}

bool is_true(Run&, const Value& value, const Arguments&) {
  return value.is_bool() && value.truthy();
}
bool is_false(Run&, const Value& value, const Arguments&) {
  return value.is_bool() && !value.truthy();
}
bool is_boolean(Run&, const Value& value, const Arguments&) { return value.is_bool(); }
bool is_callable(Run&, const Value& value, const Arguments&) { return value.function() != nullptr; }
bool is_defined(Run&, const Value& value, const Arguments&) { return !value.is_undefined(); }
bool is_undefined(Run&, const Value& value, const Arguments&) { return value.is_undefined(); }
bool is_divisible(Run& run, const Value& value, const Arguments& arguments) {
  return remainder(run, value, arguments.positional[0]) == 0;
}
bool is_even(Run& run, const Value& value, const Arguments&) {
  return remainder(run, value, int64_t{2}) == 0;
}
bool is_odd(Run& run, const Value& value, const Arguments&) {
  return remainder(run, value, int64_t{2}) == 1;
}
bool is_float(Run&, const Value& value, const Arguments&) { return value.is_float(); }
bool is_integer(Run&, const Value& value, const Arguments&) {
  return value.is_int() && !value.is_bool();
}
bool is_number(Run&, const Value& value, const Arguments&) { return value.is_number(); }
bool is_iterable(Run&, const Value& value, const Arguments&) {
  return value.text() || value.sequence() || value.dict() || value.is_undefined();
}
bool is_mapping(Run&, const Value& value, const Arguments&) { return value.dict() != nullptr; }
bool is_none(Run&, const Value& value, const Arguments&) { return value.is_none(); }
bool is_string(Run&, const Value& value, const Arguments&) { return value.text() != nullptr; }
bool is_same(Run&, const Value& value, const Arguments& arguments) {
  const Value& other = arguments.positional[0];
  return value.storage().index() == other.storage().index() && equal_scalars(value, other);
}

// Whether there are letters with a case, all of them the one that `map` gives.
template <Text (*map)(const Text&), Text (*opposite)(const Text&)>
bool has_case(Run& run, const Value& value, const Arguments&) {
  const Text text = to_str(run, value);
  run.step_for_bytes(32 * text.size());
  return map(text).bytes() == text.bytes() && opposite(text).bytes() != text.bytes();
}

constexpr std::array kTests = {
    Test{"!=", compares<Op::not_equal>, 1},
    Test{"<", compares<Op::less>, 1},
    Test{"<=", compares<Op::less_equal>, 1},
    Test{"==", compares<Op::equal>, 1},
    Test{">", compares<Op::greater>, 1},
    Test{">=", compares<Op::greater_equal>, 1},
    Test{"boolean", is_boolean, 0},
    Test{"callable", is_callable, 0},
    Test{"defined", is_defined, 0},
    Test{"divisibleby", is_divisible, 1},
    Test{"eq", compares<Op::equal>, 1},
    Test{"equalto", compares<Op::equal>, 1},
    Test{"even", is_even, 0},
    Test{"false", is_false, 0},
    Test{"float", is_float, 0},
    Test{"ge", compares<Op::greater_equal>, 1},
    Test{"greaterthan", compares<Op::greater>, 1},
    Test{"gt", compares<Op::greater>, 1},
    Test{"in", compares<Op::in>, 1},
    Test{"integer", is_integer, 0},
    Test{"iterable", is_iterable, 0},
    Test{"le", compares<Op::less_equal>, 1},
    Test{"lessthan", compares<Op::less>, 1},
    Test{"lower", has_case<lower, upper>, 0},
    Test{"lt", compares<Op::less>, 1},
    Test{"mapping", is_mapping, 0},
    Test{"ne", compares<Op::not_equal>, 1},
    Test{"none", is_none, 0},
    Test{"number", is_number, 0},
    Test{"odd", is_odd, 0},
    Test{"sameas", is_same, 1},
    Test{"sequence", is_iterable, 0},
    Test{"string", is_string, 0},
    Test{"true", is_true, 0},
    Test{"undefined", is_undefined, 0},
    Test{"upper", has_case<upper, lower>, 0},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found = std::find_if(kTests.begin(), kTests.end(),
                                   [&](const Test& test) { return test.name == name; });
  return found == kTests.end() ? nullptr : found;
}

bool run_test(Run& run, const Test& test, const Value& value, const Arguments& arguments) {
  if (arguments.positional.size() != test.parameters || !arguments.named.empty()) {
    run.fail("the test '" + std::string(test.name) + "' takes " + std::to_string(test.parameters) +
             " argument(s)");
  }
  return test.holds(run, value, arguments);
}

}  // namespace flexllm::tokenizer::jinja
