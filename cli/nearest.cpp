#include "cli/nearest.h"

#include <algorithm>

namespace flexllm::cli {
namespace {

// Optimal string alignment.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view typed, const std::vector<std::string>& names) {
  constexpr size_t kLongest = 100;  // of what is worth comparing
  if (typed.size() > kLongest) return {};
  size_t best = typed.size() / 3 + 1;
  std::string found;
  for (const auto& name : names) {
    const size_t here = distance(typed, name);
    if (here < best) {
      best = here;
      found = name;
    } else if (here == best) {
      found.clear();
    }
  }
  return found;
}

std::string suggestion(std::string_view typed, const std::vector<std::string>& names) {
  const std::string name = nearest(typed, names);
  return name.empty() ? "" : " (did you mean " + name + "?)";
}

}  // namespace flexllm::cli
