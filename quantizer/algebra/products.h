// Products of dense matrices on OpenBLAS. A product is cut into tiles of a fixed size, one call of
// the library each, and the tiles are spread over the workers: the bits of a result depend on the
// shapes and on the processor's type, never on the number of threads.
//
// T is float or double. The target must not overlap an operand. Shapes that do not fit throw
// std::invalid_argument. A call belongs to one thread, as its Workers do.
#pragma once

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

// c = product * (a op b) + kept * c. With kept = 0 what c held does not matter, not even a NaN.
struct Blend {
  double product = 1;
  double kept = 0;
};

// c [m][n] from a [m][k] and b [n][k]: a b^T. A linear layer: a are tokens, b the weights.
template <typename T>
void multiply_transposed(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
                         std::type_identity_t<BasicView<const T>> b, Workers& workers,
                         Blend blend = {});

// c [m][n] from a [m][k] and b [k][n]: a b.
template <typename T>
void multiply(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
              std::type_identity_t<BasicView<const T>> b, Workers& workers, Blend blend = {});

// c [m][n] from a [k][m] and b [k][n]: a^T b.
template <typename T>
void transposed_multiply(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
                         std::type_identity_t<BasicView<const T>> b, Workers& workers,
                         Blend blend = {});

// c [n][n] = product * x^T x + kept * c for x [k][n], c symmetric; both triangles are written.
template <typename T>
void symmetric_product(BasicView<T> c, std::type_identity_t<BasicView<const T>> x, Workers& workers,
                       Blend blend = {1, 1});

}  // namespace flexllm::quantizer
