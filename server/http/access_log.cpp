#include "server/http/access_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

namespace flexllm::server {
namespace {

int open_file(const std::filesystem::path& file) {
  if (file == "-") return STDERR_FILENO;
  return ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

std::string cannot_open(const std::filesystem::path& file) {
  return fmt::format("{}: {}", file.string(), std::strerror(errno));
}

}  // namespace

std::string to_json(const AccessRecord& record, std::chrono::system_clock::time_point end) {
  using std::chrono::milliseconds;
  const auto begin = std::chrono::time_point_cast<milliseconds>(
      end - std::chrono::duration_cast<std::chrono::system_clock::duration>(record.duration));
  const auto second = std::chrono::floor<std::chrono::seconds>(begin);
  const double took = std::chrono::duration<double, std::milli>(record.duration).count();
  nlohmann::ordered_json line = {
      {"time", fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                           fmt::gmtime(std::chrono::system_clock::to_time_t(second)),
                           (begin - second).count())},
      {"id", record.request.id},
      {"method", record.request.method},
      {"path", record.target},
      {"status", record.status},
      {"bytes", record.bytes},
      {"duration_ms", std::round(took * 1000) / 1000}};
  if (record.request.key > 0) line["key"] = record.request.key;
  if (record.tokens) {
    line["prompt_tokens"] = record.tokens->prompt;
    line["completion_tokens"] = record.tokens->completion;
  }
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

tl::expected<std::unique_ptr<AccessLog>, std::string> AccessLog::open(
    const std::filesystem::path& file) {
  const int descriptor = open_file(file);
  if (descriptor < 0) return tl::unexpected(cannot_open(file));
  return std::unique_ptr<AccessLog>(new AccessLog(file, descriptor));
}

AccessLog::AccessLog(std::filesystem::path file, int descriptor)
    : file_(std::move(file)), descriptor_(descriptor) {}

AccessLog::~AccessLog() {
  if (descriptor_ != STDERR_FILENO) ::close(descriptor_);
}

void AccessLog::write(const AccessRecord& record) {
  const std::string line = to_json(record, std::chrono::system_clock::now()) + "\n";
  const std::lock_guard lock(mutex_);
  const std::string bytes = (torn_ ? "\n" : "") + line;
  const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
  const bool whole = written == static_cast<ssize_t>(bytes.size());
  if (!whole && lost_ == 0) spdlog::warn("access log {}", cannot_open(file_));
  if (written > 0) torn_ = !whole;
  lost_ = whole ? 0 : lost_ + 1;
}

tl::expected<void, std::string> AccessLog::reopen() {
  const int fresh = open_file(file_);
  if (fresh < 0) return tl::unexpected(cannot_open(file_));
  const std::lock_guard lock(mutex_);
  if (descriptor_ != STDERR_FILENO) ::close(descriptor_);
  descriptor_ = fresh;
  torn_ = false;
  return {};
}

}  // namespace flexllm::server
