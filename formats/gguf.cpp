#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

constexpr uint64_t kMaxKeyLength = 65535;  // the format's own limit
constexpr uint64_t kMaxTensorNameLength = 256;
constexpr uint64_t kMaxMetadata = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 18;
constexpr uint32_t kMaxDimensions = 4;  // the format's own limit
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr int kMaxArrayDepth = 4;

// Bytes of one value of a fixed-size type; 0 for strings and arrays.
size_t size_of(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      return 0;
  }
  return 0;
}

std::string_view name_of(GgufType type) {
  constexpr std::array<std::string_view, 13> kNames = {
      "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
      "bool",  "string", "array",  "uint64", "int64",  "float64"};
  return kNames.at(static_cast<size_t>(type));
}

struct TensorType {
  uint32_t code;
  DType type;
};
constexpr std::array<TensorType, 8> kTensorTypes = {{{0, DType::f32},
                                                     {1, DType::f16},
                                                     {2, DType::q4_0},
                                                     {3, DType::q4_1},
                                                     {8, DType::q8_0},
                                                     {12, DType::q4_k},
                                                     {14, DType::q6_k},
                                                     {30, DType::bf16}}};

template <typename T>
T load(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Names from a file are quoted in messages, shortened and without control characters.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text.substr(0, 64)) result += static_cast<unsigned char>(c) < 32 ? '?' : c;
  return result + (text.size() > 64 ? "...'" : "'");
}

std::optional<int64_t> as_integer(const GgufValue& value) {
  switch (value.type) {
    case GgufType::u8:
      return load<uint8_t>(value.bytes);
    case GgufType::i8:
      return load<int8_t>(value.bytes);
    case GgufType::u16:
      return load<uint16_t>(value.bytes);
    case GgufType::i16:
      return load<int16_t>(value.bytes);
    case GgufType::u32:
      return load<uint32_t>(value.bytes);
    case GgufType::i32:
      return load<int32_t>(value.bytes);
    case GgufType::u64:
    case GgufType::i64:
      return load<int64_t>(value.bytes);  // above 2^63: negative, so out of every range
    default:
      return std::nullopt;
  }
}

}  // namespace

// Walks the file once. Nothing is allocated in proportion to a number from the file before the
// bytes that the number promises have been found to be there.
class GgufFile::Parser {
 public:
  explicit Parser(GgufFile& file) : file_(file), bytes_(file.file_.bytes()) {}

  void parse() {
    if (bytes_.size() < 4 || as_text(bytes_.first(4)) != "GGUF") {
      fail("expected the magic 'GGUF'");
    }
    at_ = 4;
    file_.version_ = number<uint32_t>("the version");
    if (file_.version_ == 0x02000000 || file_.version_ == 0x03000000) {
      fail("the file is big-endian; only little-endian GGUF is supported");
    }
    if (file_.version_ != 2 && file_.version_ != 3) {
      fail("GGUF version " + std::to_string(file_.version_) + "; expected 2 or 3");
    }
    const auto tensors = number<uint64_t>("the number of tensors");
    const auto metadata = number<uint64_t>("the number of metadata keys");
    if (tensors > kMaxTensors) fail("more than " + std::to_string(kMaxTensors) + " tensors");
    if (metadata > kMaxMetadata) fail("more than " + std::to_string(kMaxMetadata) + " keys");
    for (uint64_t i = 0; i < metadata; ++i) parse_entry();
    read_general_keys();
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < tensors; ++i) offsets.push_back(parse_tensor_head());
    locate_data(offsets);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(file_.path(), "byte " + std::to_string(at_), what);
  }

  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    const uint64_t left = bytes_.size() - at_;
    if (size > left) {
      fail("expected " + std::string(what) + " of " + std::to_string(size) +
           " bytes, but the file has " + std::to_string(left) + " left");
    }
    const auto taken = bytes_.subspan(at_, size);
    at_ += size;
    return taken;
  }

  template <typename T>
  T number(std::string_view what) {
    return load<T>(take(sizeof(T), what));
  }

  std::string_view string(std::string_view what, uint64_t max_length) {
    const auto length = number<uint64_t>(what);
    if (length > max_length) {
      fail(std::string(what) + " is longer than " + std::to_string(max_length) + " bytes");
    }
    return as_text(take(length, what));
  }

  GgufType type(std::string_view key) {
    const auto code = number<uint32_t>("a value type");
    if (code > static_cast<uint32_t>(GgufType::f64)) {
      fail("key " + quoted(key) + " has value type " + std::to_string(code) + "; expected 0 to 12");
    }
    return static_cast<GgufType>(code);
  }

  void parse_entry() {
    const std::string_view key = string("a metadata key", kMaxKeyLength);
    GgufValue value;
    value.type = type(key);
    if (value.type == GgufType::array) {
      value.element = type(key);
      value.count = number<uint64_t>("an array length");
      const size_t begin = at_;
      skip_elements(key, value.element, value.count, 1);
      value.bytes = bytes_.subspan(begin, at_ - begin);
    } else if (value.type == GgufType::string) {
      const std::string_view text = string("a metadata string", bytes_.size());
      value.bytes = std::as_bytes(std::span(text));
    } else {
      value.bytes = take(size_of(value.type), "a metadata value");
      check_bools(key, value.type, value.bytes);
    }
    if (!file_.metadata_.emplace(key, value).second) fail("key " + quoted(key) + " stands twice");
  }

  void skip_elements(std::string_view key, GgufType element, uint64_t count, int depth) {
    if (const size_t size = size_of(element); size > 0) {
      if (count > (bytes_.size() - at_) / size) {
        fail("key " + quoted(key) + ": an array of " + std::to_string(count) +
             " elements does not fit in the rest of the file");
      }
      check_bools(key, element, take(count * size, "array elements"));
      return;
    }
    if (depth == kMaxArrayDepth) fail("key " + quoted(key) + ": arrays are nested too deeply");
    for (uint64_t i = 0; i < count; ++i) {  // each element takes at least 8 bytes of the file
      if (element == GgufType::string) {
        string("an array string", bytes_.size());
      } else {
        const GgufType inner = type(key);
        skip_elements(key, inner, number<uint64_t>("an array length"), depth + 1);
      }
    }
  }

  void check_bools(std::string_view key, GgufType value_type,
                   std::span<const std::byte> values) const {
    if (value_type != GgufType::boolean) return;
    if (std::ranges::any_of(values, [](std::byte b) { return b > std::byte{1}; })) {
      fail("key " + quoted(key) + ": a bool is neither 0 nor 1");
    }
  }

  void read_general_keys() {
    if (const auto parts = file_.find_uint("split.count"); parts.value_or(1) > 1) {
      throw Error(file_.path(), "key 'split.count'",
                  "the file is one of " + std::to_string(*parts) +
                      " parts of a split model; merge them first (llama-gguf-split --merge)");
    }
    file_.alignment_ = file_.find_uint("general.alignment").value_or(32);
    if (!std::has_single_bit(file_.alignment_) || file_.alignment_ > kMaxAlignment) {
      throw Error(file_.path(), "key 'general.alignment'",
                  "expected a power of two up to " + std::to_string(kMaxAlignment));
    }
  }

  // Returns the tensor's offset into the data section.
  uint64_t parse_tensor_head() {
    GgufTensor tensor;
    tensor.name = string("a tensor name", kMaxTensorNameLength);
    const std::string who = "tensor " + quoted(tensor.name);
    const auto dimensions = number<uint32_t>("the number of dimensions");
    if (dimensions == 0 || dimensions > kMaxDimensions) {
      fail(who + " has " + std::to_string(dimensions) + " dimensions; expected 1 to 4");
    }
    for (uint32_t i = 0; i < dimensions; ++i) {
      tensor.shape.push_back(number<uint64_t>("a dimension"));
    }
    std::ranges::reverse(tensor.shape);
    const auto code = number<uint32_t>("a tensor type");
    const auto* known = std::ranges::find(kTensorTypes, code, &TensorType::code);
    if (known == kTensorTypes.end()) {
      fail(who + " has type " + std::to_string(code) +
           "; supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K");
    }
    tensor.type = known->type;
    const auto offset = number<uint64_t>("a tensor offset");
    if (offset % file_.alignment_ != 0) {
      fail(who + ": offset " + std::to_string(offset) + " is not a multiple of " +
           std::to_string(file_.alignment_));
    }
    if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
      fail(who + " stands twice");
    }
    file_.tensors_.push_back(std::move(tensor));
    return offset;
  }

  // The data section begins at the next multiple of the alignment; offsets count from there.
  void locate_data(const std::vector<uint64_t>& offsets) {
    const uint64_t begin = (at_ + file_.alignment_ - 1) / file_.alignment_ * file_.alignment_;
    const uint64_t available = bytes_.size() - std::min<uint64_t>(begin, bytes_.size());
    for (size_t i = 0; i < offsets.size(); ++i) {
      GgufTensor& tensor = file_.tensors_[i];
      const uint64_t size = byte_size(tensor);
      if (offsets[i] > available || size > available - offsets[i]) {
        throw Error(file_.path(), "tensor " + quoted(tensor.name),
                    "its " + std::to_string(size) + " bytes at offset " +
                        std::to_string(offsets[i]) + " of the data section end beyond the file");
      }
      tensor.data = bytes_.subspan(begin + offsets[i], size);
    }
    check_overlaps();
  }

  uint64_t byte_size(const GgufTensor& tensor) const {
    const BlockSize block = block_size(tensor.type);
    if (tensor.shape.back() % block.elements != 0) {
      throw Error(file_.path(), "tensor " + quoted(tensor.name),
                  "rows of " + std::to_string(tensor.shape.back()) +
                      " elements are not whole blocks of " +
                      std::string(formats::name_of(tensor.type)));
    }
    uint64_t elements = 1;
    for (const uint64_t dimension : tensor.shape) {
      if (dimension == 0 || dimension > (uint64_t{1} << 48) / elements) {
        throw Error(file_.path(), "tensor " + quoted(tensor.name),
                    "a dimension is zero or their product exceeds 2^48");
      }
      elements *= dimension;
    }
    return elements / block.elements * block.bytes;
  }

  void check_overlaps() const {
    std::vector<const GgufTensor*> sorted;
    for (const GgufTensor& tensor : file_.tensors_) sorted.push_back(&tensor);
    std::ranges::sort(sorted, {}, [](const GgufTensor* t) { return t->data.data(); });
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i - 1]->data.data() + sorted[i - 1]->data.size() > sorted[i]->data.data()) {
        throw Error(file_.path(), "tensor " + quoted(sorted[i]->name),
                    "its data overlaps that of tensor " + quoted(sorted[i - 1]->name));
      }
    }
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) { Parser(*this).parse(); }

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

namespace {

Error wrong_kind(const GgufFile& file, std::string_view key, const GgufValue& value,
                 std::string_view expected) {
  std::string found(name_of(value.type));
  if (value.type == GgufType::array) found += " of " + std::string(name_of(value.element));
  return Error(file.path(), "key " + quoted(key),
               "expected " + std::string(expected) + ", found " + found);
}

}  // namespace

std::optional<uint64_t> GgufFile::find_uint(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = as_integer(*value);
  if (!integer) throw wrong_kind(*this, key, *value, "an integer");
  if (*integer < 0) {
    throw Error(path(), "key " + quoted(key), "expected an integer from 0 to 2^63 - 1");
  }
  return static_cast<uint64_t>(*integer);
}

std::optional<double> GgufFile::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  double number = 0;
  if (value->type == GgufType::f32) {
    number = load<float>(value->bytes);
  } else if (value->type == GgufType::f64) {
    number = load<double>(value->bytes);
  } else if (const auto integer = as_integer(*value)) {
    number = static_cast<double>(*integer);
  } else {
    throw wrong_kind(*this, key, *value, "a number");
  }
  if (!std::isfinite(number)) throw Error(path(), "key " + quoted(key), "expected a finite number");
  return number;
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::boolean) throw wrong_kind(*this, key, *value, "a bool");
  return value->bytes.front() != std::byte{0};
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) throw wrong_kind(*this, key, *value, "a string");
  return as_text(value->bytes);
}

bool GgufFile::for_each_string(std::string_view key,
                               const std::function<void(std::string_view)>& use) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return false;
  if (value->type != GgufType::array || value->element != GgufType::string) {
    throw wrong_kind(*this, key, *value, "an array of strings");
  }
  std::span<const std::byte> rest = value->bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto length = load<uint64_t>(rest);
    use(as_text(rest.subspan(8, length)));
    rest = rest.subspan(8 + length);
  }
  return true;
}

std::vector<float> GgufFile::floats(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::array || value->element != GgufType::f32) {
    throw wrong_kind(*this, key, *value, "an array of float32");
  }
  std::vector<float> result(value->count);
  if (!result.empty()) std::memcpy(result.data(), value->bytes.data(), value->bytes.size());
  return result;
}

std::vector<int32_t> GgufFile::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::array ||
      (value->element != GgufType::i32 && value->element != GgufType::u32)) {
    throw wrong_kind(*this, key, *value, "an array of int32");
  }
  std::vector<int32_t> result(value->count);
  if (!result.empty()) std::memcpy(result.data(), value->bytes.data(), value->bytes.size());
  return result;
}

}  // namespace flexllm::formats
