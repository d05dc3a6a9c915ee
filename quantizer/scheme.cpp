#include "quantizer/scheme.h"

#include <regex>
#include <stdexcept>

namespace flexllm::quantizer {

std::string Scheme::name() const {
  std::string text = "w" + std::to_string(weight_bits) + (grouped ? "g64" : "") + "a" +
                     std::to_string(activation_bits) + "kv8-lm" + std::to_string(lm_head_bits);
  if (lm_head_activation_bits == 4) text += "a4";
  if (probability_bits == 8) text += "-p8";
  if (rotate_down) text += "-r4";
  return text;
}

Scheme Scheme::parse(std::string_view name) {
  static const std::regex pattern("w([48])(g64)?a([48])kv8-lm([48])(a4)?(-p8)?(-r4)?");
  std::match_results<std::string_view::const_iterator> match;
  if (!std::regex_match(name.begin(), name.end(), match, pattern)) {
    throw std::invalid_argument(
        "\"" + std::string(name) +
        "\" is not a scheme: w4 or w8, g64 if grouped, a4 or a8, kv8, -lm4, -lm8 or -lm4a4, then "
        "-p8 for "
        "8-bit probabilities and -r4 for rotated down_proj; for instance w4g64a8kv8-lm8");
  }
  const auto bits = [](const auto& group) { return group.str() == "4" ? 4u : 8u; };
  Scheme scheme;
  scheme.weight_bits = bits(match[1]);
  scheme.grouped = match[2].matched;
  scheme.activation_bits = bits(match[3]);
  scheme.lm_head_bits = bits(match[4]);
  scheme.lm_head_activation_bits = match[5].matched ? 4 : 8;
  scheme.probability_bits = match[6].matched ? 8 : 16;
  scheme.rotate_down = match[7].matched;
  return scheme;
}

kernels::Precision Scheme::layer_precision(bool bias) const {
  return {weight_bits / 4, activation_bits / 4, grouped, bias};
}

kernels::Precision Scheme::lm_head_precision() const {
  return {lm_head_bits / 4, lm_head_activation_bits / 4, grouped, false};
}

}  // namespace flexllm::quantizer
