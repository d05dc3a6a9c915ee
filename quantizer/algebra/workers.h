// A fixed pool of threads that loops are spread over. Whoever computes owns one and passes it on;
// it serves one calling thread at a time.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace flexllm::quantizer {

class Workers {
 public:
  // The calling thread is one of `threads`; 0: as many as the processors that this process may use.
  explicit Workers(size_t threads = 0);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  size_t threads() const { return helpers_.size() + 1; }

  // Calls body(i) once for each i in 0..count-1, on this thread and the helpers, and returns when
  // all are done. Which thread takes which i, and when, is open: a result is the same on any number
  // of threads if no body reads what another one writes. Within a body, a call runs on that thread
  // alone. Rethrows the first exception of a body; then not every i has been called.
  void run(size_t count, const std::function<void(size_t)>& body);

 private:
  void help();
  void take_indices();

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  const std::function<void(size_t)>* body_ = nullptr;
  size_t next_ = 0;
  size_t count_ = 0;
  size_t running_ = 0;
  std::exception_ptr error_;
  bool ending_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace flexllm::quantizer
