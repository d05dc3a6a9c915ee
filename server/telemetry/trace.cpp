#include "server/telemetry/trace.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

namespace flexllm::server {
namespace {

constexpr size_t kBuffer = 1u << 20;  // events beyond are dropped
constexpr std::chrono::milliseconds kPause{250};
constexpr const char* kEnd = "\n]\n";

std::string arguments(Trace::Numbers numbers) {
  std::string out;
  for (const auto& [name, value] : numbers) {
    out += fmt::format("{}\"{}\":{}", out.empty() ? "" : ",", name, value);
  }
  return out;
}

std::string named(const char* kind, Trace::Track track, std::string_view name) {
  return fmt::format(
      R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"name":{}}}}})", kind, track.process,
      track.thread,
      nlohmann::json(name).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

}  // namespace

tl::expected<std::unique_ptr<Trace>, std::string> Trace::open(const std::filesystem::path& path,
                                                              uint64_t max_bytes) {
  std::FILE* const file = std::fopen(path.c_str(), "we");
  if (file == nullptr) {
    return tl::unexpected(
        fmt::format("cannot write the trace {}: {}", path.string(), std::strerror(errno)));
  }
  return std::unique_ptr<Trace>(new Trace(file, max_bytes));
}

Trace::Trace(std::FILE* file, uint64_t max_bytes)
    : file_(file), max_bytes_(max_bytes), start_(std::chrono::steady_clock::now()) {
  const auto unix_time = std::chrono::system_clock::now().time_since_epoch();
  buffer_ = fmt::format(
      "[\n{{\"ph\":\"M\",\"name\":\"flexllm\",\"pid\":1,\"args\":{{\"start_unix_ms\":{}}}}}",
      std::chrono::duration_cast<std::chrono::milliseconds>(unix_time).count());
  bytes_ = buffer_.size() + std::strlen(kEnd);
  add(named("process_name", of_request(0), "requests"));
  add(named("process_name", of_stage(host::Stage::decode), "card"));
  add(named("thread_name", of_stage(host::Stage::decode), "decode"));
  add(named("thread_name", of_stage(host::Stage::prefill), "prefill"));
  thread_ = std::thread([this] { write_down(); });
}

Trace::~Trace() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  std::fputs(kEnd, file_);
  std::fclose(file_);
  if (dropped_ > 0) spdlog::warn("trace: {} events were dropped", dropped_);
}

double Trace::microseconds(TimePoint at) const {
  return std::chrono::duration<double, std::micro>(at - start_).count();
}

void Trace::add(std::string event) {
  const std::lock_guard lock(mutex_);
  const size_t bytes = event.size() + 2;
  if (buffer_.size() + bytes > kBuffer || bytes_ + bytes > max_bytes_) {
    ++dropped_;
    return;
  }
  buffer_ += ",\n";
  buffer_ += event;
  bytes_ += bytes;
}

void Trace::write_down() {
  std::unique_lock lock(mutex_);
  while (true) {
    const bool last = stopping_;
    std::string taken;
    taken.swap(buffer_);
    lock.unlock();
    if (std::fwrite(taken.data(), 1, taken.size(), file_) != taken.size()) {
      spdlog::error("trace: {}", std::strerror(errno));
    }
    std::fflush(file_);
    lock.lock();
    if (last) return;
    wake_.wait_for(lock, kPause, [this] { return stopping_; });
  }
}

void Trace::name(Track track, std::string_view name) { add(named("thread_name", track, name)); }

void Trace::span(Track track, const char* name, TimePoint begin, TimePoint end, Numbers numbers) {
  add(fmt::format(
      R"({{"ph":"X","name":"{}","pid":{},"tid":{},"ts":{:.1f},"dur":{:.1f},"args":{{{}}}}})", name,
      track.process, track.thread, microseconds(begin), microseconds(end) - microseconds(begin),
      arguments(numbers)));
}

void Trace::instant(Track track, const char* name, TimePoint at, Numbers numbers) {
  add(fmt::format(R"({{"ph":"i","s":"t","name":"{}","pid":{},"tid":{},"ts":{:.1f},"args":{{{}}}}})",
                  name, track.process, track.thread, microseconds(at), arguments(numbers)));
}

uint64_t Trace::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

}  // namespace flexllm::server
