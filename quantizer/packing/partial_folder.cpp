#include "quantizer/packing/partial_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/error.h"

namespace flexllm::quantizer {
namespace {

namespace fs = std::filesystem;
using formats::Error;

constexpr const char* kKeyFile = "key";

std::string reason() { return std::generic_category().message(errno); }

}  // namespace

PartialFolder::PartialFolder(const fs::path& output, std::string stem, const std::string& key)
    : folder_(output.string() + ".partial"), stem_(std::move(stem)) {
  std::error_code error;
  fs::create_directory(folder_, error);
  if (!fs::is_directory(folder_)) {
    throw Error(folder_, "cannot make the folder", error ? error.message() : "a file is there");
  }
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename() != kKeyFile && !is_ours(entry.path())) {
      throw Error(folder_, entry.path().filename().string(),
                  "is not of an unfinished run: move the folder away");
    }
  }
  const fs::path key_file = folder_ / kKeyFile;
  lock_ = ::open(key_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw Error(key_file, "cannot open", reason());
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw Error(folder_, "in use", "another process is writing the same file");
  }
  std::ifstream stored(key_file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stored), std::istreambuf_iterator<char>()};
  if (text == key) return;
  // Files go before the key comes: a run that is killed in between begins anew.
  remove_files();
  if (::ftruncate(lock_, 0) != 0 ||
      ::pwrite(lock_, key.data(), key.size(), 0) != static_cast<ssize_t>(key.size()) ||
      ::fsync(lock_) != 0) {
    const std::string why = reason();
    ::close(lock_);
    throw Error(key_file, "cannot write", why);
  }
}

uint64_t PartialFolder::bytes_beside(const fs::path& output) {
  std::error_code error;
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(output.string() + ".partial", error)) {
    const uint64_t size = entry.file_size(error);
    if (!error) bytes += size;
  }
  return bytes;
}

PartialFolder::~PartialFolder() {
  if (lock_ < 0) return;
  std::error_code error;
  if (!holds_files()) {
    fs::remove(folder_ / kKeyFile, error);
    fs::remove(folder_, error);
  }
  ::close(lock_);
}

void PartialFolder::finish() {
  remove_files();
  std::error_code error;
  fs::remove(folder_ / kKeyFile, error);
  fs::remove(folder_, error);
}

void PartialFolder::remove_files() const {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (is_ours(entry.path())) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

bool PartialFolder::holds_files() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (is_ours(entry.path())) return true;
  }
  return false;
}

fs::path PartialFolder::file(const std::string& name) const { return folder_ / (stem_ + name); }

bool PartialFolder::is_ours(const fs::path& file) const {
  return file.filename().string().starts_with(stem_);
}

}  // namespace flexllm::quantizer
