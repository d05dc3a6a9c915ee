// What systemd, or whatever else gave us NOTIFY_SOCKET (sd_notify(3)), is told about a server's
// life. Without it nothing happens.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace flexllm::cli {

class Systemd {
 public:
  Systemd();  // reads the environment
  ~Systemd();
  Systemd(const Systemd&) = delete;
  Systemd& operator=(const Systemd&) = delete;

  void ready(std::string_view status);
  void reloading();  // ready() follows
  void stopping();
  // If a watchdog is on: from a thread of its own says twice in each of its intervals that we live,
  // as long as `alive`, which gets half an interval, says so.
  void keep_watch(std::function<bool(std::chrono::milliseconds)> alive);

 private:
  void tell(const std::string& state) const;

  std::string address_;
  std::chrono::milliseconds interval_{0};  // of the watchdog; 0: there is none
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread watch_;
};

}  // namespace flexllm::cli
