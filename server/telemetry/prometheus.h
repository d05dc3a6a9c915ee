// Prometheus' text format, a metric at a time: its name without the prefix `flexllm_`, its type,
// what it is, and one value for each label. Pure functions.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace flexllm::server::prometheus {

struct Value {
  std::string labels;  // `stage="decode"`; empty: none
  double value = 0;
};

inline void head(std::string& out, std::string_view name, std::string_view type,
                 std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP flexllm_{0} {2}\n# TYPE flexllm_{0} {1}\n", name,
                 type, help);
}

inline void metric(std::string& out, std::string_view name, std::string_view type,
                   std::string_view help, std::initializer_list<Value> values) {
  head(out, name, type, help);
  for (const Value& value : values) {
    const std::string labels = value.labels.empty() ? "" : "{" + value.labels + "}";
    fmt::format_to(std::back_inserter(out), "flexllm_{}{} {}\n", name, labels, value.value);
  }
}

// For a label's value.
inline std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}

}  // namespace flexllm::server::prometheus
