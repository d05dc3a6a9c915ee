#include "tokenizer/jinja/globals.h"

#include <array>
#include <string>

#include "tokenizer/jinja/format.h"

namespace flexllm::tokenizer::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as in Jinja's sandbox

Value range(Run& run, const Arguments& arguments) {
  const Values& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) {
    run.fail("range expects 1 to 3 arguments");
  }
  for (const Value& value : given) {
    if (!value.is_int()) run.fail(std::string("range expects integers, not ") + value.type());
  }
  const int64_t start = given.size() > 1 ? given[0].as_int() : 0;
  const int64_t stop = given.size() > 1 ? given[1].as_int() : given[0].as_int();
  const int64_t step = given.size() > 2 ? given[2].as_int() : 1;
  if (step == 0) run.fail("range: the step must not be zero");
  Values items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (items.size() == kMaxRange) run.fail("Range too big. The sandbox blocks ranges over 100000");
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return run.list(std::move(items));
}

Value dict(Run& run, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& value : arguments.positional) {
    if (!value.dict()) run.fail("dict() expects a dict or named arguments");
    items.insert(items.end(), value.dict()->items.begin(), value.dict()->items.end());
  }
  for (const auto& [name, value] : arguments.named) {
    items.emplace_back(run.text(name, Origin::from_template), value);
  }
  return run.dict(std::move(items));
}

Value name_space(Run& run, const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> items;
  for (const Value& value : arguments.positional) {
    if (!value.dict()) run.fail("namespace() expects a dict or named arguments");
    for (const auto& [key, item] : value.dict()->items) {
      items.emplace_back(to_str(run, key).bytes(), item);
    }
  }
  items.insert(items.end(), arguments.named.begin(), arguments.named.end());
  return run.name_space(std::move(items));
}

Value raise_exception(Run& run, const Arguments& arguments) {
  const Value* message = arguments.find(0, "message");
  run.refuse(message ? to_str(run, *message).bytes() : "the template raised an exception");
}

Value strftime_now(Run& run, const Arguments& arguments, const std::tm& now) {
  constexpr std::string_view kConversions = "aAbBcCdDeFgGhHIjklmMnNpPrRsStTuUVwWxXyYzZ%-_0^#";
  const Value* format = arguments.find(0, "format");
  if (!format || !format->text()) run.fail("strftime_now expects a format");
  std::string pattern = format->text()->bytes();
  for (size_t at = pattern.find('%'); at != std::string::npos; at = pattern.find('%', at + 2)) {
    if (at + 1 == pattern.size() || kConversions.find(pattern[at + 1]) == std::string::npos) {
      run.fail("strftime_now: '" + pattern + "' is not a format");
    }
  }
  if (pattern.empty()) return run.text("", Origin::from_template);
  std::array<char, 512> buffer{};
  const size_t size = std::strftime(buffer.data(), buffer.size(), pattern.c_str(), &now);
  if (size == 0) run.fail("strftime_now: the time does not fit in 511 bytes");
  return run.text(std::string_view(buffer.data(), size), format->text()->origin());
}

}  // namespace

void set_globals(Evaluator& evaluator, const std::tm& now) {
  const auto set = [&](const char* name, auto call) {
    evaluator.set_variable(name, std::make_shared<const Function>(Function{name, call, 1}));
  };
  set("range", range);
  set("dict", dict);
  set("namespace", name_space);
  set("raise_exception", raise_exception);
  set("strftime_now",
      [now](Run& run, const Arguments& arguments) { return strftime_now(run, arguments, now); });
}

}  // namespace flexllm::tokenizer::jinja
