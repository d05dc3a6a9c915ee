// A regular file mapped read-only. Move-only; the mapping lives as long as the object. Any thread
// may read the bytes. The file must not be cut while it is mapped: the kernel answers a read beyond
// its new end with SIGBUS.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace flexllm::formats {

// Whether `path` leads to a regular file; false when that cannot be found out.
bool is_file(const std::filesystem::path& path);

class MappedFile {
 public:
  // Throws Error when `path` is not a regular file that can be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace flexllm::formats
