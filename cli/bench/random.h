// Random numbers of a load that is the same on every machine: std::mt19937_64 is specified to the
// bit, the distributions of <random> are not. A plain value; one thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>

namespace flexllm::cli::bench {

class Random {
 public:
  // Different streams of one seed have nothing to do with each other.
  Random(uint64_t seed, uint64_t stream) : engine_(mixed(mixed(seed) + stream)) {}

  // In [0, 1).
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  // In [low, high].
  uint64_t integer(uint64_t low, uint64_t high) {
    return low + static_cast<uint64_t>(uniform() * static_cast<double>(high - low + 1));
  }
  // Mean 0, variance 1 (Box and Muller).
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }
  // Between two arrivals of a Poisson process of this rate.
  double exponential(double rate) { return -std::log(1 - uniform()) / rate; }

 private:
  // SplitMix64: neighbouring seeds begin far apart.
  static uint64_t mixed(uint64_t x) {
    x += 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }

  std::mt19937_64 engine_;
};

}  // namespace flexllm::cli::bench
