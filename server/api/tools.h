// `tools`, `tool_choice` and `parallel_tool_calls` of a chat. Pure functions, called by HTTP
// threads.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "server/api/error.h"
#include "server/api/fields.h"
#include "server/api/tool_calls.h"
#include "server/grammar/grammar_cache.h"

namespace flexllm::server {

struct Tools {
  enum class Choice { none, automatic, required };
  nlohmann::ordered_json list;  // as the client sent it, for the template; null: there are none
  std::vector<std::string> names;
  Choice choice = Choice::none;
  std::string only;      // required: this one; empty: any
  bool parallel = true;  // several calls in one answer
};

inline constexpr size_t kMaxTools = 128;
inline constexpr uint32_t kMaxForcedCalls = 8;  // in an answer that must call

// Mistakes go to `fields`; `ordered` is the member `tools` with its own in order.
Tools read_tools(Fields& fields, const nlohmann::ordered_json& ordered);

// A call, or several, whose arguments satisfy the schemas of `tools`, written in `format`. The
// error names the place in the schema.
tl::expected<std::shared_ptr<const grammar::Grammar>, ApiError> grammar_of(
    const Tools& tools, ToolFormat format, grammar::GrammarCache& cache);

}  // namespace flexllm::server
