// The keys that clients must bring. Immutable; any thread may check.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace flexllm::server {

class ApiKeys {
 public:
  // No key: everybody is let in.
  ApiKeys() = default;
  explicit ApiKeys(const std::vector<std::string>& keys);
  // One key a line; blank lines and lines that begin with '#' are skipped. The error names the
  // file, never a key.
  static tl::expected<std::vector<std::string>, std::string> read(
      const std::filesystem::path& file);

  bool required() const { return !digests_.empty(); }
  // Which of the keys an Authorization header, "Bearer KEY", has, from 1; 0: none. Takes the same
  // time for every key of a length: digests are compared, all of them, in constant time.
  uint32_t find(std::string_view authorization) const;

 private:
  std::vector<std::array<unsigned char, 32>> digests_;  // SHA-256
};

}  // namespace flexllm::server
