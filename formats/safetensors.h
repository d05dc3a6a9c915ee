// The safetensors format: a mapped, checked reader and a streaming writer. A SafetensorsFile is
// immutable, and any thread may read it; a SafetensorsWriter belongs to one thread at a time. Both
// throw Error.
//
// A file is a u64 header length, a JSON header, and the tensors' bytes one after the other without
// gaps. The writer starts the data at a multiple of 64 bytes, so a tensor is aligned to 64 bytes
// when the sizes of all before it are multiples of 64: put those first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/dtype.h"
#include "formats/mapped_file.h"

namespace flexllm::formats {

// `data` is exactly the tensor, row-major, little-endian; it may be unaligned.
struct SafetensorsTensor {
  std::string name;
  DType type = DType::f32;
  std::vector<uint64_t> shape;  // outermost first; empty for a scalar
  std::span<const std::byte> data;
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // In the order of their data.
  std::span<const SafetensorsTensor> tensors() const { return tensors_; }

  // nullptr when there is none of that name.
  const SafetensorsTensor* find(std::string_view name) const;

 private:
  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;
};

// What the writer must know of a tensor before the first byte is written. Only the plain types.
struct SafetensorsHead {
  std::string name;
  DType type = DType::f32;
  std::vector<uint64_t> shape;
};

// Writes a file aside and puts it in its place only when it is whole and on the disk: after
// `commit`, `path` is the new file; without, or after an Error (a full disk), `path` is what it was
// before and nothing is left. A process that is killed leaves the file aside (PATH.partial-PID-N);
// the next writer of the same path removes it.
// Metadata comes last, so that it may hold what is known only then, such as checksums.
class SafetensorsWriter {
 public:
  // `metadata_capacity`: bytes kept free in the header for the JSON text of the metadata.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsHead> tensors,
                    uint64_t metadata_capacity);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Appends the next bytes of the data, which must belong to tensor `name`: tensors are written in
  // the order of the list, each in one piece or in several.
  void write(std::string_view name, std::span<const std::byte> piece);

  // Call once, after the last byte of the last tensor.
  void commit(const std::map<std::string, std::string>& metadata);

 private:
  void write_all(std::span<const std::byte> bytes);
  void skip_finished();
  void require_open() const;
  void discard();
  [[noreturn]] void fail(std::string_view what);  // with the system's reason; nothing is left

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  std::vector<SafetensorsHead> tensors_;
  std::vector<uint64_t> sizes_;  // bytes, parallel to tensors_
  uint64_t data_begin_ = 0;
  size_t current_ = 0;    // tensor being written
  uint64_t written_ = 0;  // bytes of it
};

// Removes the files aside of writers of `path` that were killed; those of writers at work, in any
// process, stay. Any thread may call it. Throws nothing: what cannot be removed stays.
void remove_abandoned(const std::filesystem::path& path);

}  // namespace flexllm::formats
