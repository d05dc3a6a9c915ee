#include "formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

Error system_error(const std::filesystem::path& path, std::string_view what) {
  return Error(path, what, std::generic_category().message(errno));
}

}  // namespace

bool is_file(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw system_error(path, "cannot open");
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    const Error error = system_error(path, "cannot read its size");
    ::close(fd);
    throw error;
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    throw Error(path, "cannot map", "expected a regular file");
  }
  const auto size = static_cast<size_t>(status.st_size);
  if (size > 0) {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      const Error error = system_error(path, "cannot map");
      ::close(fd);
      throw error;
    }
    bytes_ = {static_cast<const std::byte*>(address), size};
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace flexllm::formats
