// A GGUF file (version 2 or 3, little-endian), mapped and checked: metadata and tensors as views
// into the file. Immutable after construction; any thread may read it. The views live as long as
// the GgufFile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/dtype.h"
#include "formats/mapped_file.h"

namespace flexllm::formats {

// Types of metadata values, numbered as in the file.
enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

// A metadata value: its type and its bytes in the file, whose inner lengths have been checked. Of
// an array, `element` and `count` are what its head says, and `bytes` are the elements.
struct GgufValue {
  GgufType type = GgufType::u8;
  GgufType element = GgufType::u8;
  uint64_t count = 0;
  std::span<const std::byte> bytes;
};

// `shape` is outermost first (the file states it innermost first); `data` is exactly the tensor.
struct GgufTensor {
  std::string_view name;
  std::vector<uint64_t> shape;
  DType type = DType::f32;
  std::span<const std::byte> data;
};

class GgufFile {
 public:
  // Throws Error when the file is not GGUF, is cut, contradicts itself, is one part of a split
  // model, or has a tensor of a type that DType does not name.
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }

  const GgufValue* find(std::string_view key) const;

  // The value of a key: nullopt when it is absent, Error when it is of another kind or out of
  // range. Integers of any width will do for uint; integers and floats for number.
  std::optional<uint64_t> find_uint(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;

  // Calls `use` for each string of an array of strings, in order, and says whether the key is
  // there. Throws Error when it is anything else.
  bool for_each_string(std::string_view key,
                       const std::function<void(std::string_view)>& use) const;
  // An array of f32 or of i32 (as u32 too), copied; empty when absent.
  std::vector<float> floats(std::string_view key) const;
  std::vector<int32_t> integers(std::string_view key) const;

  std::span<const GgufTensor> tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;

 private:
  class Parser;

  MappedFile file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::unordered_map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace flexllm::formats
