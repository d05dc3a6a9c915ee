#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "formats/error.h"
#include "formats/json_text.h"
#include "formats/safetensors.h"
#include "formats/safetensors_header.h"

namespace flexllm::formats {
namespace {

constexpr uint64_t kDataAlignment = 64;
constexpr uint64_t kMaxDataSize = uint64_t{1} << 56;

Error system_error(const std::filesystem::path& path, std::string_view what) {
  return Error(path, what, std::generic_category().message(errno));
}

std::string header_text(const std::filesystem::path& path,
                        const std::vector<SafetensorsHead>& tensors,
                        const std::vector<uint64_t>& sizes,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    header[tensors[i].name] = {{"dtype", name_of(tensors[i].type)},
                               {"shape", tensors[i].shape},
                               {"data_offsets", {at, at + sizes[i]}}};
    at += sizes[i];
  }
  try {
    return header.dump();
  } catch (const Json::exception&) {
    throw Error(path, "header", "expected names and metadata in UTF-8");
  }
}

constexpr std::string_view kAside = ".partial-";

// Whether `name` is one of create_beside() for a file `target`.
bool is_aside(std::string_view name, const std::string& target) {
  if (!name.starts_with(target + std::string(kAside))) return false;
  name.remove_prefix(target.size() + kAside.size());
  const size_t dash = name.find('-');
  const auto number = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return dash != std::string_view::npos && number(name.substr(0, dash)) &&
         number(name.substr(dash + 1));
}

// A new file beside `path`, open for writing and locked for as long as it is open.
std::pair<std::filesystem::path, int> create_beside(const std::filesystem::path& path) {
  for (int attempt = 0;; ++attempt) {
    std::filesystem::path temporary = path;
    temporary += std::string(kAside) + std::to_string(::getpid()) + "-" + std::to_string(attempt);
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
      if (errno == EEXIST && attempt < 1000) continue;
      throw system_error(path, "cannot create a file beside it");
    }
    struct stat status = {};
    if (::flock(fd, LOCK_EX) != 0 || ::fstat(fd, &status) != 0) {
      const Error error = system_error(path, "cannot lock a file beside it");
      ::close(fd);
      ::unlink(temporary.c_str());
      throw error;
    }
    if (status.st_nlink > 0) return {std::move(temporary), fd};
    ::close(fd);  // before the lock was there, another process took the file for an abandoned one
  }
}

// Brings the entry of a renamed file to the disk.
void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const Error error = system_error(folder, "cannot bring the folder to the disk");
  if (fd >= 0) ::close(fd);
  if (!synced) throw error;
}

}  // namespace

void remove_abandoned(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::string target = path.filename().string();
  std::error_code error;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (is_aside(entry->path().filename().string(), target)) found.push_back(entry->path());
  }
  for (const std::filesystem::path& file : found) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(file.c_str());
    ::close(fd);
  }
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsHead> tensors,
                                     uint64_t metadata_capacity)
    : path_(path), tensors_(std::move(tensors)) {
  std::set<std::string_view> names;
  uint64_t total = 0;
  for (const SafetensorsHead& tensor : tensors_) {
    const std::string place = "tensor '" + tensor.name + "'";
    const auto size = safetensors_size(tensor.type, tensor.shape);
    if (!safetensors_type(name_of(tensor.type)) || !size ||
        tensor.shape.size() > kMaxSafetensorsDimensions) {
      throw Error(path_, place, "its type or shape cannot be written to safetensors");
    }
    if (tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
      throw Error(path_, place, "the name is taken");
    }
    total += *size;
    if (total > kMaxDataSize) throw Error(path_, place, "the data exceed 2^56 bytes");
    sizes_.push_back(*size);
  }
  const uint64_t unaligned = sizeof(uint64_t) +
                             header_text(path_, tensors_, sizes_, {{"", ""}}).size() +
                             metadata_capacity;
  data_begin_ = (unaligned + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  if (data_begin_ - sizeof(uint64_t) > kMaxSafetensorsHeader) {
    throw Error(
        path_, "header",
        "tensors and metadata need more than " + std::to_string(kMaxSafetensorsHeader) + " bytes");
  }
  remove_abandoned(path_);
  std::tie(temporary_, fd_) = create_beside(path_);
  if (::lseek(fd_, static_cast<off_t>(data_begin_), SEEK_SET) < 0) fail("cannot seek");
  skip_finished();
}

SafetensorsWriter::~SafetensorsWriter() { discard(); }

void SafetensorsWriter::discard() {
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::fail(std::string_view what) {
  const Error error = system_error(path_, what);
  discard();
  throw error;
}

void SafetensorsWriter::require_open() const {
  if (fd_ < 0) throw Error(path_, "cannot write", "the writer has failed or has committed");
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> piece) {
  require_open();
  if (current_ == tensors_.size() || tensors_[current_].name != name) {
    if (piece.empty()) return;
    throw Error(path_, "tensor '" + std::string(name) + "'",
                current_ == tensors_.size()
                    ? "all tensors have been written"
                    : "expected bytes of tensor '" + tensors_[current_].name + "'");
  }
  if (piece.size() > sizes_[current_] - written_) {
    throw Error(path_, "tensor '" + std::string(name) + "'",
                "more bytes than the " + std::to_string(sizes_[current_]) + " announced");
  }
  write_all(piece);
  written_ += piece.size();
  skip_finished();
}

void SafetensorsWriter::skip_finished() {
  while (current_ < tensors_.size() && written_ == sizes_[current_]) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::write_all(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void SafetensorsWriter::commit(const std::map<std::string, std::string>& metadata) {
  require_open();
  if (current_ != tensors_.size()) {
    throw Error(path_, "tensor '" + tensors_[current_].name + "'",
                "only " + std::to_string(written_) + " of its " + std::to_string(sizes_[current_]) +
                    " bytes have been written");
  }
  std::string header = header_text(path_, tensors_, sizes_, metadata);
  const uint64_t size = data_begin_ - sizeof(uint64_t);
  if (header.size() > size) {
    throw Error(path_, "header", "the metadata is larger than the capacity reserved for it");
  }
  header.resize(size, ' ');
  if (::lseek(fd_, 0, SEEK_SET) < 0) fail("cannot seek");
  write_all(std::as_bytes(std::span(&size, 1)));
  write_all(std::as_bytes(std::span(header)));
  if (::fsync(fd_) != 0) fail("cannot bring it to the disk");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot put it in its place");
  ::close(std::exchange(fd_, -1));
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

}  // namespace flexllm::formats
