// Products of dense matrices on OpenBLAS. A product is cut into tiles of a fixed size, one call of
// the library each, and the tiles are spread over the workers: the bits of a result depend on the
// shapes and on the processor's type, never on the number of threads.
//
// A matrix may stand for a view. The target must not overlap an operand. Shapes that do not fit
// throw std::invalid_argument. A call belongs to one thread, as its Workers do.
#pragma once

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

// c = product * (the product) + kept * c. With kept = 0 what c held does not matter, not even a
// NaN.
struct Blend {
  double product = 1;
  double kept = 0;
};

// c [m][n] from a [m][k] and b [n][k]: a b^T. A linear layer: rows of a are tokens, b the weights.
void multiply_transposed(View c, ConstView a, ConstView b, Workers& workers, Blend blend = {});
void multiply_transposed(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers,
                         Blend blend = {});

// c [m][n] from a [m][k] and b [k][n]: a b.
void multiply(View c, ConstView a, ConstView b, Workers& workers, Blend blend = {});
void multiply(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers,
              Blend blend = {});

// c [m][n] from a [k][m] and b [k][n]: a^T b.
void transposed_multiply(View c, ConstView a, ConstView b, Workers& workers, Blend blend = {});
void transposed_multiply(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers,
                         Blend blend = {});

// c [n][n] from x [k][n]: x^T x, added to c by default. Reads and computes the lower triangle of c,
// and writes both.
void symmetric_product(View c, ConstView x, Workers& workers, Blend blend = {1, 1});
void symmetric_product(DoubleView c, ConstDoubleView x, Workers& workers, Blend blend = {1, 1});

}  // namespace flexllm::quantizer
