#include <bit>

#include "quantizer/rotation/rotation.h"

namespace flexllm::quantizer {
namespace {

bool is_prime(size_t n) {
  if (n < 2) return false;
  for (size_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// Legendre symbols of 0..q-1 modulo the prime q: 1 for squares, -1 for others, 0 for 0.
std::vector<float> legendre_symbols(size_t q) {
  std::vector<float> symbols(q, -1);
  symbols[0] = 0;
  for (size_t i = 1; i < q; ++i) symbols[i * i % q] = 1;
  return symbols;
}

// [q+1][q+1]: a border of ones, below it `corner`, and the symbols of i - j.
Matrix bordered(size_t q, float corner) {
  const std::vector<float> symbols = legendre_symbols(q);
  Matrix s(q + 1, q + 1);
  for (size_t i = 1; i <= q; ++i) {
    s(0, i) = 1;
    s(i, 0) = corner;
    for (size_t j = 1; j <= q; ++j) s(i, j) = symbols[(i + q - j) % q];
  }
  return s;
}

// For q = 3 mod 4 the bordered matrix is skew with s s^T = q, so s + 1 is a Hadamard matrix.
Matrix paley_one(size_t q) {
  Matrix h = bordered(q, -1);
  for (size_t i = 0; i <= q; ++i) h(i, i) = 1;
  return h;
}

// For q = 1 mod 4 it is symmetric with s s^T = q, so s x [1 1; 1 -1] + 1 x [1 -1; -1 -1] is one.
Matrix paley_two(size_t q) {
  const Matrix s = bordered(q, 1);
  Matrix h(2 * (q + 1), 2 * (q + 1));
  for (size_t i = 0; i <= q; ++i) {
    for (size_t j = 0; j <= q; ++j) {
      const float same = i == j ? 1.0f : 0.0f;
      h(2 * i, 2 * j) = s(i, j) + same;
      h(2 * i, 2 * j + 1) = s(i, j) - same;
      h(2 * i + 1, 2 * j) = s(i, j) - same;
      h(2 * i + 1, 2 * j + 1) = -s(i, j) - same;
    }
  }
  return h;
}

std::optional<Matrix> paley(size_t order) {
  if (order % 4 != 0) return std::nullopt;
  if (is_prime(order - 1)) return paley_one(order - 1);
  const size_t q = order / 2 - 1;
  if (q % 4 == 1 && is_prime(q)) return paley_two(q);
  return std::nullopt;
}

}  // namespace

std::optional<Matrix> hadamard_matrix(size_t order) {
  if (order == 0) return std::nullopt;
  Matrix core(1, 1, {1});
  if (!std::has_single_bit(order)) {
    size_t factor = order >> std::countr_zero(order);
    std::optional<Matrix> found;
    while (!found && order % factor == 0) {
      found = paley(factor);
      factor *= 2;
    }
    if (!found) return std::nullopt;
    core = std::move(*found);
  }
  // Sylvester: the core times the Walsh-Hadamard matrix of what is left.
  const size_t m = core.rows();
  const size_t power = order / m;
  Matrix h(order, order);
  for (size_t i = 0; i < order; ++i) {
    for (size_t j = 0; j < order; ++j) {
      const bool odd = (std::popcount(i % power & j % power) & 1) != 0;
      h(i, j) = odd ? -core(i / power, j / power) : core(i / power, j / power);
    }
  }
  return h;
}

}  // namespace flexllm::quantizer
