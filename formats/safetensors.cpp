#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "formats/error.h"
#include "formats/json_text.h"
#include "formats/safetensors_header.h"

namespace flexllm::formats {
namespace {

struct Entry {
  SafetensorsTensor tensor;
  uint64_t begin = 0;
  uint64_t end = 0;
};

std::optional<std::vector<uint64_t>> as_integers(const Json* json) {
  if (json == nullptr || !json->is_array()) return std::nullopt;
  std::vector<uint64_t> values;
  for (const Json& value : *json) {
    if (!value.is_number_unsigned()) return std::nullopt;
    values.push_back(value.get<uint64_t>());
  }
  return values;
}

Entry parse_entry(const std::filesystem::path& path, const std::string& name, const Json& json) {
  const JsonObject object(path, name, json);
  Entry entry;
  entry.tensor.name = name;
  const std::string type = object.string("dtype");
  const auto known = safetensors_type(type);
  if (!known) object.fail("dtype", "type '" + type + "' is not supported");
  entry.tensor.type = *known;
  const auto shape = as_integers(object.find("shape"));
  if (!shape || shape->size() > kMaxSafetensorsDimensions) {
    object.fail("shape", "expected an array of at most " +
                             std::to_string(kMaxSafetensorsDimensions) + " sizes");
  }
  entry.tensor.shape = *shape;
  const auto size = safetensors_size(*known, *shape);
  if (!size) object.fail("shape", "the product of the dimensions exceeds 2^48");
  const auto offsets = as_integers(object.find("data_offsets"));
  if (!offsets || offsets->size() != 2 || offsets->at(0) > offsets->at(1)) {
    object.fail("data_offsets", "expected [begin, end]");
  }
  entry.begin = offsets->at(0);
  entry.end = offsets->at(1);
  if (entry.end - entry.begin != *size) {
    object.fail("data_offsets", "expected " + std::to_string(*size) + " bytes, found " +
                                    std::to_string(entry.end - entry.begin));
  }
  return entry;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    throw Error(path, "byte 0", "expected a safetensors file: a header length of 8 bytes");
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  const std::span<const std::byte> rest = bytes.subspan(sizeof header_size);
  if (header_size > kMaxSafetensorsHeader || header_size > rest.size()) {
    throw Error(path, "byte 0",
                "a header of " + std::to_string(header_size) + " bytes; the file has " +
                    std::to_string(rest.size()) + " more, and at most " +
                    std::to_string(kMaxSafetensorsHeader) + " are accepted");
  }
  const std::span<const std::byte> data = rest.subspan(header_size);
  const Json header =
      parse_json(path, "header", file_.text().substr(8, header_size), kMaxSafetensorsHeader);
  std::vector<Entry> entries;
  for (const auto& [name, value] : JsonObject(path, "", header).json().items()) {
    if (name != "__metadata__") {
      entries.push_back(parse_entry(path, name, value));
      continue;
    }
    const JsonObject strings(path, name, value);
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) strings.fail(key, "expected a string");
      metadata_.emplace(key, text.get<std::string>());
    }
  }
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  uint64_t at = 0;
  for (Entry& entry : entries) {
    if (entry.begin != at || entry.end > data.size()) {
      throw Error(path, "tensor '" + entry.tensor.name + "'",
                  "bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end) +
                      " of the data; expected them to begin at " + std::to_string(at) +
                      " and end by " + std::to_string(data.size()));
    }
    entry.tensor.data = data.subspan(entry.begin, entry.end - entry.begin);
    at = entry.end;
    tensors_.push_back(std::move(entry.tensor));
  }
  if (at != data.size()) {
    throw Error(path, "byte " + std::to_string(8 + header_size + at),
                std::to_string(data.size() - at) + " bytes that belong to no tensor");
  }
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace flexllm::formats
