// A string that knows, byte by byte, who wrote it: the template or its caller. Cutting and joining
// keep that, so that a prompt can say which control tokens its template meant. A plain value.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace flexllm::tokenizer::jinja {

enum class Origin : char { from_template, from_caller };

class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, Origin origin)
      : bytes_(bytes), origins_(bytes.size(), static_cast<char>(origin)) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  Origin origin_at(size_t position) const { return static_cast<Origin>(origins_[position]); }
  // Of text put in place of all of this one: the caller's, if any byte of it is.
  Origin origin() const {
    return origins_.find(static_cast<char>(Origin::from_caller)) == std::string::npos
               ? Origin::from_template
               : Origin::from_caller;
  }

  void append(std::string_view bytes, Origin origin) {
    bytes_ += bytes;
    origins_.append(bytes.size(), static_cast<char>(origin));
  }
  void append(const Text& other) {
    bytes_ += other.bytes_;
    origins_ += other.origins_;
  }
  void append(const Text& other, size_t begin, size_t end) {
    bytes_.append(other.bytes_, begin, end - begin);
    origins_.append(other.origins_, begin, end - begin);
  }
  Text part(size_t begin, size_t end) const {
    Text result;
    result.append(*this, begin, end);
    return result;
  }

 private:
  std::string bytes_;    // UTF-8
  std::string origins_;  // as long as bytes_
};

}  // namespace flexllm::tokenizer::jinja
