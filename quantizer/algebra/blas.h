// Private to this folder: the calls of OpenBLAS, for float and double. Each runs on the calling
// thread, and several threads may call at once. Debian's build with threads stands that; its serial
// build does not, whatever its package says (0.3.21 gives two threads one buffer now and then and
// returns wrong products), so calls of any other build are made one at a time.
#pragma once

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer::blas {

enum class Shape { a_b, a_bt, at_b };  // which operand is stored transposed

void gemm(Shape shape, View c, ConstView a, ConstView b, Blend blend);
void gemm(Shape shape, DoubleView c, ConstDoubleView a, ConstDoubleView b, Blend blend);

// b = b l^-T for a lower triangular l.
void solve_right_transposed(DoubleView b, ConstDoubleView l);

}  // namespace flexllm::quantizer::blas
