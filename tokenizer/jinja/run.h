// One rendering: its limits, what it has used of them, and the line where it stands. All values of
// the rendering are made here. Owned by ChatTemplate::render, used by its thread.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja/value.h"

namespace flexllm::tokenizer::jinja {

class Run {
 public:
  explicit Run(const TemplateLimits& limits) : limits_(limits) {}
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Where errors are reported. Set by the evaluator as it goes.
  void set_line(size_t line) { line_ = line; }
  size_t line() const { return line_; }

  void step(uint64_t count = 1);  // throws at the limit
  void step_for_bytes(size_t bytes) { step(1 + bytes / 16); }
  void check_depth(size_t depth) const;   // likewise
  void check_output(size_t bytes) const;  // likewise

  [[noreturn]] void fail(const std::string& what) const;    // as Python would
  [[noreturn]] void refuse(const std::string& what) const;  // raise_exception()

  Value text(Text text);
  Value text(std::string_view bytes, Origin origin) { return text(Text(bytes, origin)); }
  Value list(Values items, bool tuple = false);
  Value dict(std::vector<std::pair<Value, Value>> items);  // of equal keys the last one counts
  Value name_space(std::vector<std::pair<std::string, Value>> items);
  Value method(const Value& self, std::string_view name,
               Value (*call)(Run&, const Value&, const Arguments&));

  // Text in it is the caller's.
  Value from_json(const nlohmann::ordered_json& json, size_t depth = 0);

  // The elements that a `for` visits: of a list, the characters of a string, the keys of a dict.
  // Fails for what cannot be iterated.
  std::shared_ptr<const Sequence> iterate(const Value& value);

 private:
  TemplateLimits limits_;
  uint64_t steps_ = 0;
  size_t line_ = 1;
  // All of them, emptied at the end: they can refer to each other in circles.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace flexllm::tokenizer::jinja
