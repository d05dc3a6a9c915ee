// The values of JSON Schema's `format` that are enforced, as regular expressions over the whole
// text.
#pragma once

#include <optional>
#include <string_view>

namespace flexllm::server::grammar {

std::optional<std::string_view> pattern_of_format(std::string_view format);

}  // namespace flexllm::server::grammar
