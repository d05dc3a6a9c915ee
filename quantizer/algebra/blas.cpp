#include "quantizer/algebra/blas.h"

#include <cblas.h>

#include <mutex>

namespace flexllm::quantizer::blas {
namespace {

int size_of(size_t size) { return static_cast<int>(size); }

// Held during a call. Our workers are the threads: the library must not start more.
class Call {
 public:
  Call() {
    static const bool concurrent = [] {
      openblas_set_num_threads(1);
      return openblas_get_parallel() == OPENBLAS_THREAD;
    }();
    if (!concurrent) lock_ = std::unique_lock(mutex());
  }

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  std::unique_lock<std::mutex> lock_;
};

template <typename T, typename Function>
void call_gemm(Function function, Shape shape, BasicView<T> c, BasicView<const T> a,
               BasicView<const T> b, Blend blend) {
  if (c.rows == 0 || c.cols == 0) return;
  const Call call;
  const size_t inner = shape == Shape::at_b ? a.rows : a.cols;
  function(CblasRowMajor, shape == Shape::at_b ? CblasTrans : CblasNoTrans,
           shape == Shape::a_bt ? CblasTrans : CblasNoTrans, size_of(c.rows), size_of(c.cols),
           size_of(inner), static_cast<T>(blend.product), a.data, size_of(a.stride), b.data,
           size_of(b.stride), static_cast<T>(blend.kept), c.data, size_of(c.stride));
}

}  // namespace

void gemm(Shape shape, View c, ConstView a, ConstView b, Blend blend) {
  call_gemm(cblas_sgemm, shape, c, a, b, blend);
}

void gemm(Shape shape, DoubleView c, ConstDoubleView a, ConstDoubleView b, Blend blend) {
  call_gemm(cblas_dgemm, shape, c, a, b, blend);
}

void solve_right_transposed(DoubleView b, ConstDoubleView l) {
  if (b.rows == 0) return;
  const Call call;
  cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, size_of(b.rows),
              size_of(b.cols), 1.0, l.data, size_of(l.stride), b.data, size_of(b.stride));
}

}  // namespace flexllm::quantizer::blas
