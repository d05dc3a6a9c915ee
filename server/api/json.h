// JSON from strangers: parsed with a limit on nesting, refused with a sentence and a place. Pure
// functions; any thread may call them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace flexllm::server {

inline constexpr size_t kMaxJsonDepth = 64;

// Refuses what is not JSON, text that is not UTF-8 and arrays or objects nested deeper than
// `max_depth`. The error is one sentence that says where, without quoting the text.
tl::expected<nlohmann::json, std::string> parse_json(std::string_view text,
                                                     size_t max_depth = kMaxJsonDepth);

// The body of a request. What a model reads or writes by is also kept with its members in the order
// of the text; the rest has none, because finding a member would then take longer the more there
// are.
struct RequestBody {
  nlohmann::json fields;
  nlohmann::ordered_json ordered;  // of `fields`: response_format and tools, if they are there
};

inline constexpr size_t kMaxOrderedMembers = 1000;  // of one object

// As parse_json(); also refuses objects of more than kMaxOrderedMembers members in what is ordered.
tl::expected<RequestBody, std::string> parse_body(std::string_view text);

// A JSON text with its members in order, under the same limits; nothing if it is none.
std::optional<nlohmann::ordered_json> parse_ordered(std::string_view text);

// The integer that a number is, also when it is written 2.0 or 2e3: to JSON they are the same.
// Nothing for what is no integer or has no int64.
std::optional<int64_t> integer_of(const nlohmann::json& value);

// Compact; never throws: bytes that are not UTF-8 become U+FFFD.
std::string dump(const nlohmann::ordered_json& value);

}  // namespace flexllm::server
