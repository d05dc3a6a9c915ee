// One JSON line for each answer, in a file that others may rotate. Thread-safe. What cannot be
// written, a full disk, costs lines and never an answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "server/http/types.h"

namespace flexllm::server {

struct AccessRecord {
  const HttpRequest& request;
  std::string target;  // the path as it was sent
  unsigned status = 0;
  uint64_t bytes = 0;  // sent, with head and framing
  std::chrono::steady_clock::duration duration{};
  std::optional<TokenCounts> tokens;
};

class AccessLog {
 public:
  // "-": stderr. Anything else is appended to, and made with mode 0640. The error names the file.
  static tl::expected<std::unique_ptr<AccessLog>, std::string> open(
      const std::filesystem::path& file);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void write(const AccessRecord& record);
  // After the file was moved away. If it cannot be opened lines still go where they went.
  tl::expected<void, std::string> reopen();

 private:
  AccessLog(std::filesystem::path file, int descriptor);

  const std::filesystem::path file_;
  std::mutex mutex_;
  int descriptor_;
  bool torn_ = false;  // the last line was only written in part
  uint64_t lost_ = 0;  // lines since the last whole one
};

// The line, without its end.
std::string to_json(const AccessRecord& record, std::chrono::system_clock::time_point end);

}  // namespace flexllm::server
