// How long prompts and answers of a load are, in tokens. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "cli/bench/random.h"

namespace flexllm::cli::bench {

// Every length lies in [1, kMostTokens].
inline constexpr uint32_t kMostTokens = 1u << 20;

class Lengths {
 public:
  // "128"; "uniform:LOW-HIGH", both included; "lognormal:MEDIAN,SIGMA", where SIGMA is the standard
  // deviation of the logarithm, rounded to whole tokens. The error says what is wrong.
  static tl::expected<Lengths, std::string> parse(std::string_view text);

  uint32_t sample(Random& random) const;
  const std::string& text() const { return text_; }  // as it was parsed

 private:
  enum class Kind { fixed, uniform, lognormal };
  Kind kind_ = Kind::fixed;
  double first_ = 1;   // the length; the lowest one; the median
  double second_ = 0;  // -; the highest one; sigma
  std::string text_ = "1";
};

}  // namespace flexllm::cli::bench
