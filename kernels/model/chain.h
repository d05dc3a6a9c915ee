// Arithmetic of pipelines: when the first and the last element of a unit of work (a row, a tile)
// leave a module. Times are cycles from the start of a region.
#pragma once

#include <algorithm>

namespace flexllm::kernels::model {

struct Span {
  double first;
  double last;
};

// A module that hands each element on `depth` cycles after it came, and is busy `cost` cycles with
// a unit.
class Streaming {
 public:
  explicit Streaming(double depth = 0) : depth_(depth) {}

  Span pass(Span in, double cost) {
    const double begin = std::max(in.first, free_);
    const double end = std::max(in.last, begin + cost);
    free_ = end;
    busy_ += cost;
    return {begin + depth_, end + depth_};
  }
  double busy() const { return busy_; }
  double free_at() const { return free_; }

 private:
  double depth_;
  double free_ = 0;
  double busy_ = 0;
};

// A module that must have seen a whole unit (for `intake` cycles) before it sends any of it (in
// `emit` cycles), as two tasks: the next unit enters while this one leaves.
class Buffering {
 public:
  explicit Buffering(double latency) : latency_(latency) {}

  Span pass(Span in, double intake, double emit) {
    taken_ = std::max(in.last, std::max(in.first, taken_) + intake);
    const double begin = std::max(taken_ + latency_, sent_);
    sent_ = begin + emit;
    busy_ += std::max(intake, emit);
    return {begin, sent_};
  }
  double busy() const { return busy_; }

 private:
  double latency_;
  double taken_ = 0;
  double sent_ = 0;
  double busy_ = 0;
};

}  // namespace flexllm::kernels::model
