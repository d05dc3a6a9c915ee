#include "cli/bench/lengths.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

namespace flexllm::cli::bench {
namespace {

constexpr double kMostSigma = 5;

std::optional<double> number_of(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> length_of(std::string_view text) {
  if (text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  const auto value = number_of(text);
  if (!value || *value < 1 || *value > kMostTokens) return std::nullopt;
  return value;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

tl::expected<Lengths, std::string> Lengths::parse(std::string_view text) {
  const auto wrong = [] {
    return tl::unexpected(fmt::format(
        "N, 'uniform:LOW-HIGH' or 'lognormal:MEDIAN,SIGMA', in tokens from 1 to {}, SIGMA from 0 "
        "to {}",
        kMostTokens, kMostSigma));
  };
  Lengths out;
  std::string whole(text);
  const auto halves = [&text](char separator) {
    const size_t at = text.find(separator);
    return at == std::string_view::npos ? std::pair(text, std::string_view())
                                        : std::pair(text.substr(0, at), text.substr(at + 1));
  };
  std::optional<double> first, second = 0;
  if (take_prefix(text, "uniform:")) {
    out.kind_ = Kind::uniform;
    const auto [low, high] = halves('-');
    first = length_of(low);
    second = length_of(high);
    if (first && second && *first > *second) return wrong();
  } else if (take_prefix(text, "lognormal:")) {
    out.kind_ = Kind::lognormal;
    const auto [median, sigma] = halves(',');
    first = length_of(median);
    second = number_of(sigma);
    if (second && !(*second >= 0 && *second <= kMostSigma)) return wrong();
  } else {
    first = length_of(text);
  }
  if (!first || !second) return wrong();
  out.first_ = *first;
  out.second_ = *second;
  out.text_ = std::move(whole);
  return out;
}

uint32_t Lengths::sample(Random& random) const {
  switch (kind_) {
    case Kind::fixed:
      return static_cast<uint32_t>(first_);
    case Kind::uniform:
      return static_cast<uint32_t>(
          random.integer(static_cast<uint64_t>(first_), static_cast<uint64_t>(second_)));
    case Kind::lognormal:
      break;
  }
  const double length = std::round(first_ * std::exp(second_ * random.normal()));
  return static_cast<uint32_t>(std::clamp(length, 1.0, double{kMostTokens}));
}

}  // namespace flexllm::cli::bench
