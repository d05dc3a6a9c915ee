// The one exception of this room: a file is not what it should be, or cannot be read or written.
// Thrown on the thread that called; the message is one sentence for people: it names the file, the
// place in it (byte offset, key or tensor) and what was expected.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace flexllm::formats {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}

  // "<file>: <place>: <what>"
  Error(const std::filesystem::path& file, std::string_view place, std::string_view what)
      : std::runtime_error(file.string() + ": " + std::string(place) + ": " + std::string(what)) {}
};

}  // namespace flexllm::formats
