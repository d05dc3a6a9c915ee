// Dense algebra against plain loops in double, and its independence of the number of threads.
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "quantizer/algebra/cholesky.h"
#include "quantizer/algebra/hadamard.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

template <typename T>
BasicMatrix<T> random_matrix(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<T> normal(0, 1);
  BasicMatrix<T> matrix(rows, cols);
  for (T& value : matrix.elements()) value = normal(random);
  return matrix;
}

template <typename T>
BasicMatrix<T> transposed(const BasicMatrix<T>& a) {
  BasicMatrix<T> out(a.cols(), a.rows());
  for (size_t r = 0; r < a.rows(); ++r) {
    for (size_t c = 0; c < a.cols(); ++c) out(c, r) = a(r, c);
  }
  return out;
}

template <typename T>
void expect_product(const BasicMatrix<T>& c, const BasicMatrix<T>& a, const BasicMatrix<T>& b,
                    double tolerance) {
  for (size_t i = 0; i < c.rows(); ++i) {
    for (size_t j = 0; j < c.cols(); ++j) {
      double sum = 0;
      for (size_t k = 0; k < a.cols(); ++k) sum += double{a(i, k)} * double{b(k, j)};
      ASSERT_NEAR(c(i, j), sum, tolerance * std::sqrt(static_cast<double>(a.cols())))
          << i << ", " << j;
    }
  }
}

template <typename T>
bool same_bits(const BasicMatrix<T>& a, const BasicMatrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.elements().data(), b.elements().data(), a.elements().size_bytes()) == 0;
}

template <typename T>
class Products : public testing::Test {};
using Numbers = testing::Types<float, double>;
TYPED_TEST_SUITE(Products, Numbers);

TYPED_TEST(Products, AgreeWithPlainLoopsInEveryOrientation) {
  using T = TypeParam;
  Workers workers(2);
  const double tolerance = std::is_same_v<T, float> ? 3e-6 : 1e-14;
  struct Case {
    size_t m, n, k;
  };
  for (const auto& [m, n, k] : {Case{1, 1, 1}, Case{3, 70, 33}, Case{256, 256, 64},
                                Case{257, 30, 129}, Case{20, 515, 300}}) {
    const auto a = random_matrix<T>(m, k, 1);
    const auto b = random_matrix<T>(k, n, 2);
    BasicMatrix<T> c(m, n);
    c.elements()[0] = std::numeric_limits<T>::quiet_NaN();
    multiply(c, a, b, workers);
    expect_product(c, a, b, tolerance);
    c.elements()[0] = std::numeric_limits<T>::quiet_NaN();
    multiply_transposed(c, a, transposed(b), workers);
    expect_product(c, a, b, tolerance);
    c.elements()[0] = std::numeric_limits<T>::quiet_NaN();
    transposed_multiply(c, transposed(a), b, workers);
    expect_product(c, a, b, tolerance);
  }
}

TYPED_TEST(Products, BlendAndPartsOfMatrices) {
  using T = TypeParam;
  Workers workers(2);
  const auto a = random_matrix<T>(40, 50, 3);
  const auto b = random_matrix<T>(60, 50, 4);
  auto c = random_matrix<T>(40, 60, 5);
  const auto before = c;
  multiply_transposed(c.view().part(10, 20, 30, 8), a.view().part(5, 20, 7, 40),
                      b.view().part(50, 8, 10, 40), workers, {-2, 0.5});
  for (size_t i = 0; i < c.rows(); ++i) {
    for (size_t j = 0; j < c.cols(); ++j) {
      if (i < 10 || i >= 30 || j < 30 || j >= 38) {
        ASSERT_EQ(c(i, j), before(i, j));
        continue;
      }
      double sum = 0;
      for (size_t k = 0; k < 40; ++k) {
        sum += double{a(i - 10 + 5, k + 7)} * double{b(j - 30 + 50, k + 10)};
      }
      ASSERT_NEAR(c(i, j), -2 * sum + 0.5 * before(i, j), 1e-4);
    }
  }
}

TYPED_TEST(Products, SymmetricProductAddsUp) {
  using T = TypeParam;
  Workers workers(2);
  BasicMatrix<T> sum(300, 300);
  const auto x = random_matrix<T>(100, 300, 6);
  for (const size_t half : {0, 50}) symmetric_product(sum, x.view().row_range(half, 50), workers);
  expect_product(sum, transposed(x), x, std::is_same_v<T, float> ? 1e-5 : 1e-13);
  EXPECT_TRUE(same_bits(sum, transposed(sum)));
}

TYPED_TEST(Products, HaveTheSameBitsOnAnyNumberOfThreads) {
  using T = TypeParam;
  const auto a = random_matrix<T>(700, 333, 7);
  const auto b = random_matrix<T>(600, 333, 8);
  Workers one(1);
  BasicMatrix<T> expected(700, 600);
  BasicMatrix<T> square(333, 333);
  multiply_transposed(expected, a, b, one);
  symmetric_product(square, a, one);
  for (const size_t threads : {2, 3, 8}) {
    Workers workers(threads);
    BasicMatrix<T> c(700, 600);
    BasicMatrix<T> s(333, 333);
    multiply_transposed(c, a, b, workers);
    symmetric_product(s, a, workers);
    EXPECT_TRUE(same_bits(c, expected)) << threads;
    EXPECT_TRUE(same_bits(s, square)) << threads;
  }
}

// Small products, where the library's own bookkeeping is most of the work.
TEST(Products, ManyThreadsAtOnceGetTheSameBits) {
  const auto a = random_matrix<float>(256, 48, 11);
  const auto b = random_matrix<float>(48, 48, 12);
  Workers one(1);
  Matrix expected(256, 48);
  multiply_transposed(expected, a, b, one);
  Workers workers(8);
  std::atomic<int> wrong{0};
  workers.run(8, [&](size_t) {
    Matrix c(256, 48);
    for (int round = 0; round < 1000; ++round) {
      multiply_transposed(c, a, b, workers);
      if (!same_bits(c, expected)) ++wrong;
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST(Products, RefuseShapesThatDoNotFit) {
  Workers workers(1);
  Matrix c(4, 5);
  EXPECT_THROW(multiply(c, Matrix(4, 3), Matrix(2, 5), workers), std::invalid_argument);
  EXPECT_THROW(multiply_transposed(c, Matrix(4, 3), Matrix(3, 5), workers), std::invalid_argument);
  EXPECT_THROW(transposed_multiply(c, Matrix(4, 3), Matrix(4, 5), workers), std::invalid_argument);
  EXPECT_THROW(symmetric_product(c, Matrix(4, 5), workers), std::invalid_argument);
  EXPECT_THROW(c.view().part(0, 5, 0, 1), std::out_of_range);
}

DoubleMatrix random_positive(size_t n, uint32_t seed) {
  Workers workers(2);
  const auto x = random_matrix<double>(n + 20, n, seed);
  DoubleMatrix a(n, n);
  symmetric_product(a, x, workers);
  return a;
}

TEST(Cholesky, FactorsAndInverses) {
  Workers workers(2);
  for (const size_t n : {1u, 2u, 127u, 128u, 129u, 400u, 700u}) {
    const DoubleMatrix a = random_positive(n, static_cast<uint32_t>(n));
    DoubleMatrix l = a;
    for (size_t r = 0; r < n; ++r) {  // only the lower triangle is read
      for (size_t c = r + 1; c < n; ++c) l(r, c) = std::numeric_limits<double>::quiet_NaN();
    }
    DoubleMatrix u = l;
    DoubleMatrix inverse = l;
    factor_cholesky(l, workers);
    DoubleMatrix back(n, n);
    multiply_transposed(back, l, l, workers);
    DoubleMatrix identity(n, n);
    DoubleMatrix lower_inverse = l;
    invert_lower(lower_inverse, workers);
    multiply(identity, l, lower_inverse, workers);
    invert_positive(inverse, workers);
    factor_inverse(u, workers);
    DoubleMatrix product(n, n);
    transposed_multiply(product, u, u, workers);
    DoubleMatrix solved(n, n);
    multiply(solved, a, inverse, workers);
    for (size_t r = 0; r < n; ++r) {
      for (size_t c = 0; c < n; ++c) {
        ASSERT_NEAR(back(r, c), a(r, c), 1e-10 * static_cast<double>(n)) << n;
        ASSERT_NEAR(identity(r, c), r == c ? 1 : 0, 1e-9) << n;
        ASSERT_NEAR(solved(r, c), r == c ? 1 : 0, 1e-8) << n;
        ASSERT_NEAR(product(r, c), inverse(r, c), 1e-9) << n;
        if (c > r) {
          ASSERT_EQ(l(r, c), 0);
          ASSERT_EQ(u(c, r), 0);
        }
      }
    }
  }
}

TEST(Cholesky, HasTheSameBitsOnAnyNumberOfThreads) {
  const DoubleMatrix a = random_positive(600, 9);
  DoubleMatrix expected = a;
  Workers one(1);
  factor_inverse(expected, one);
  Workers workers(3);
  DoubleMatrix u = a;
  factor_inverse(u, workers);
  EXPECT_TRUE(same_bits(u, expected));
}

TEST(Cholesky, SaysWhichPivotFails) {
  Workers workers(2);
  for (const double bad : {0.0, -1.0, std::nan("")}) {
    DoubleMatrix a = random_positive(300, 10);
    a(200, 200) = bad;
    try {
      factor_cholesky(a, workers);
      FAIL() << "a pivot of " << bad;
    } catch (const NotPositiveDefinite& error) {
      EXPECT_EQ(error.pivot(), 200u);
    }
  }
  DoubleMatrix oblong(2, 3);
  EXPECT_THROW(factor_cholesky(oblong, workers), std::invalid_argument);
}

TEST(WalshHadamard, IsThePageMatrixAndItsOwnInverse) {
  std::vector<float> x(24);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i % 7) - 3;
  const std::vector<float> before = x;
  walsh_hadamard(std::span(x), 8, 1.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    float sum = 0;
    for (size_t j = 0; j < 8; ++j) {
      const bool negative = std::popcount(i % 8 & j) % 2 == 1;
      sum += (negative ? -1.0f : 1.0f) * before[i / 8 * 8 + j];
    }
    EXPECT_EQ(x[i], sum) << i;
  }
  walsh_hadamard(std::span(x), 8, 0.125f);
  EXPECT_EQ(x, before);
  EXPECT_THROW(walsh_hadamard(std::span(x), 16, 1.0f), std::invalid_argument);
  EXPECT_THROW(walsh_hadamard(std::span(x), 3, 1.0f), std::invalid_argument);
  EXPECT_THROW(walsh_hadamard(std::span(x), 0, 1.0f), std::invalid_argument);
}

TEST(Workers, CallEveryIndexOnceAndPassOnExceptions) {
  for (const size_t threads : {1, 2, 5}) {
    Workers workers(threads);
    EXPECT_EQ(workers.threads(), threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::atomic<int>> calls(37);
      workers.run(calls.size(), [&](size_t i) { ++calls[i]; });
      for (const auto& count : calls) EXPECT_EQ(count, 1);
    }
    std::atomic<int> inner{0};
    workers.run(4, [&](size_t) { workers.run(3, [&](size_t) { ++inner; }); });
    EXPECT_EQ(inner, 12);
    EXPECT_THROW(workers.run(9,
                             [](size_t i) {
                               if (i == 5) throw std::runtime_error("five");
                             }),
                 std::runtime_error);
    workers.run(1, [&](size_t) { ++inner; });
    EXPECT_EQ(inner, 13);
  }
}

}  // namespace
}  // namespace flexllm::quantizer
