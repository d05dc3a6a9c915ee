// The name that somebody who mistyped one may have meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flexllm::cli {

// The one that the fewest insertions, deletions, replacements and swaps of neighbours lead to;
// empty if that takes more than one for each three characters, or if several are as near.
std::string nearest(std::string_view typed, const std::vector<std::string>& names);
// " (did you mean X?)", or nothing.
std::string suggestion(std::string_view typed, const std::vector<std::string>& names);

}  // namespace flexllm::cli
