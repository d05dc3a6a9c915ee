// Takes a text/event-stream apart as it arrives. Used by one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flexllm::cli {

class SseReader {
 public:
  // The data of the events that `bytes` completes; comments and other fields are skipped, and the
  // lines of one event's data are joined with line feeds.
  std::vector<std::string> feed(std::string_view bytes);

 private:
  void line(std::string_view text, std::vector<std::string>& events);

  std::string rest_;  // of a line that is not whole yet
  std::string data_;
  bool has_data_ = false;
};

}  // namespace flexllm::cli
