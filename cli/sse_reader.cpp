#include "cli/sse_reader.h"

namespace flexllm::cli {

std::vector<std::string> SseReader::feed(std::string_view bytes) {
  std::vector<std::string> events;
  rest_ += bytes;
  size_t begin = 0;
  for (size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', begin)) {
    std::string_view text(&rest_[begin], end - begin);
    if (text.ends_with('\r')) text.remove_suffix(1);
    line(text, events);
    begin = end + 1;
  }
  rest_.erase(0, begin);
  return events;
}

void SseReader::line(std::string_view text, std::vector<std::string>& events) {
  if (text.empty()) {
    if (has_data_) events.push_back(std::move(data_));
    data_.clear();
    has_data_ = false;
  } else if (text.starts_with("data:")) {
    text.remove_prefix(5);
    if (text.starts_with(' ')) text.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += text;
    has_data_ = true;
  }
}

}  // namespace flexllm::cli
