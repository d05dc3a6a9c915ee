#include "server/text/text_stream.h"

#include <algorithm>

namespace flexllm::server {
size_t characters(std::string_view utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

TextStream::TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {
  for (const auto& s : stop_) longest_ = std::max(longest_, s.size());
}

std::string TextStream::append(std::string_view token_bytes, bool match) {
  if (stopped_) return {};
  std::string text;
  utf8_.push(token_bytes, text);
  if (!match || stop_.empty()) {
    held_ += text;
    return take(held_.size() - (match ? hold_size() : 0));
  }
  std::string out;
  for (const char c : text) {
    held_ += c;
    size_t matched = 0;
    for (const auto& s : stop_) {
      if (held_.ends_with(s)) matched = std::max(matched, s.size());
    }
    if (matched > 0) {
      stopped_ = true;
      out += take(held_.size() - matched);
      held_.clear();
      return out;
    }
    out += take(held_.size() - hold_size());
  }
  return out;
}

std::string TextStream::finish() {
  if (stopped_) return {};
  utf8_.finish(held_);
  return take(held_.size());
}

std::string TextStream::take(size_t count) {
  std::string out = held_.substr(0, count);
  held_.erase(0, count);
  shown_ += characters(out);
  return out;
}

// The longest suffix of the held text that begins some stop string.
size_t TextStream::hold_size() const {
  for (size_t n = std::min(held_.size(), longest_ == 0 ? 0 : longest_ - 1); n > 0; --n) {
    const std::string_view suffix = std::string_view(held_).substr(held_.size() - n);
    for (const auto& s : stop_) {
      if (s.size() > n && s.starts_with(suffix)) return n;
    }
  }
  return 0;
}

}  // namespace flexllm::server
