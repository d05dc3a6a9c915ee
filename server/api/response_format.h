// The `response_format` of a request. Pure functions, called by HTTP threads.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <tl/expected.hpp>

#include "server/api/error.h"
#include "server/api/fields.h"
#include "server/grammar/grammar_cache.h"

namespace flexllm::server {

struct ResponseFormat {
  enum class Kind { text, json_object, json_schema };
  Kind kind = Kind::text;
  nlohmann::ordered_json schema;  // of json_schema
};

// Mistakes go to `fields`; `ordered` is the member with its own in order.
ResponseFormat read_response_format(Fields& fields, const nlohmann::ordered_json& ordered);

// What the text must be; nullptr: anything. The error names the place in the schema.
tl::expected<std::shared_ptr<const grammar::Grammar>, ApiError> grammar_of(
    const ResponseFormat& format, grammar::GrammarCache& cache);

}  // namespace flexllm::server
