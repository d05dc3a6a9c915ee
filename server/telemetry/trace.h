// What happened to each request and on the card, and when, in a file that Perfetto
// (ui.perfetto.dev) and chrome://tracing open as it is: Chrome's trace event format, a JSON array
// with an event a line. No text of a prompt or an answer is in it. A track for each request, and
// one for each stage of the card.
//
// Events are written down under a lock, by any thread, and a thread of its own brings them to the
// file. When the disk is slow, or the file has reached its limit, events are dropped and counted.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <tl/expected.hpp>
#include <utility>

#include "host/engine.h"

namespace flexllm::server {

class Trace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Track {
    int process = 0;
    uint64_t thread = 0;
  };
  using Numbers = std::initializer_list<std::pair<const char*, uint64_t>>;

  static Track of_request(uint64_t arrival) { return {1, arrival + 1}; }
  static Track of_stage(host::Stage stage) {
    return {2, stage == host::Stage::decode ? uint64_t{1} : uint64_t{2}};
  }

  // Replaces the file; it grows to `max_bytes` at most. The error says what is wrong with it.
  static tl::expected<std::unique_ptr<Trace>, std::string> open(const std::filesystem::path& path,
                                                                uint64_t max_bytes);
  // Writes what is left and ends the array.
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  void name(Track track, std::string_view name);
  void span(Track track, const char* name, TimePoint begin, TimePoint end, Numbers numbers = {});
  void instant(Track track, const char* name, TimePoint at, Numbers numbers = {});
  uint64_t dropped() const;

 private:
  Trace(std::FILE* file, uint64_t max_bytes);
  void add(std::string event);
  void write_down();
  double microseconds(TimePoint at) const;

  std::FILE* const file_;
  const uint64_t max_bytes_;
  const TimePoint start_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::string buffer_;
  uint64_t bytes_ = 0;  // in the file and the buffer
  uint64_t dropped_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace flexllm::server
