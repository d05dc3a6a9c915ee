// The logarithm of the sum of exponentials of a row of logits that comes in parts. A plain value.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "quantizer/float_model/rows.h"

namespace flexllm::quantizer {

struct RunningSum {
  float largest = -std::numeric_limits<float>::infinity();
  double sum = 0;

  void add(std::span<const float> logits) {
    const float top = std::max(largest, largest_of(logits));
    sum = sum * std::exp(double{largest} - top) + sum_of_exponentials(logits, top);
    largest = top;
  }
  double log() const { return largest + std::log(sum); }
};

}  // namespace flexllm::quantizer
