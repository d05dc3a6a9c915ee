// Writes GGUF files for the tests, good ones and, on request, bad ones.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "formats/tests/files.h"

namespace flexllm::formats::testing {

struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // outermost first
    uint32_t type = 0;            // as in the file
    std::string data;
  };

  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> metadata;  // key, type and value bytes
  std::vector<Tensor> tensors;

  static std::string text(std::string_view value) {
    return bytes_of(uint64_t{value.size()}) + std::string(value);
  }

  // Replaces the value of a key or adds it.
  void set(const std::string& key, uint32_t type, const std::string& value) {
    const std::string typed = bytes_of(type) + value;
    for (auto& [known, old] : metadata) {
      if (known == key) {
        old = typed;
        return;
      }
    }
    metadata.emplace_back(key, typed);
  }
  void set_u32(const std::string& key, uint32_t value) { set(key, 4, bytes_of(value)); }
  void set_f32(const std::string& key, float value) { set(key, 6, bytes_of(value)); }
  void set_bool(const std::string& key, bool value) { set(key, 7, bytes_of(value)); }
  void set_string(const std::string& key, std::string_view value) { set(key, 8, text(value)); }
  void set_array(const std::string& key, uint32_t element, uint64_t count,
                 const std::string& elements) {
    set(key, 9, bytes_of(element) + bytes_of(count) + elements);
  }
  void set_strings(const std::string& key, const std::vector<std::string>& values) {
    std::string elements;
    for (const std::string& value : values) elements += text(value);
    set_array(key, 8, values.size(), elements);
  }

  void remove(const std::string& key) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
  }
  void remove_tensor(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no tensor " + name);
  }

  std::string build() const {
    std::string file = "GGUF" + bytes_of(version) + bytes_of(uint64_t{tensors.size()}) +
                       bytes_of(uint64_t{metadata.size()});
    for (const auto& [key, value] : metadata) file += text(key) + value;
    std::string data;
    for (const Tensor& tensor : tensors) {
      file += text(tensor.name) + bytes_of(static_cast<uint32_t>(tensor.shape.size()));
      for (auto i = tensor.shape.rbegin(); i != tensor.shape.rend(); ++i) file += bytes_of(*i);
      file += bytes_of(tensor.type) + bytes_of(uint64_t{data.size()});
      data += tensor.data;
      pad(data);
    }
    pad(file);
    return file + data;
  }

 private:
  void pad(std::string& bytes) const {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  }
};

}  // namespace flexllm::formats::testing
