// The committed golden files of this folder (make_golden.py writes them).
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace flexllm::tokenizer {

inline std::string read_test_file(const std::string& name) {
  const std::string path = std::string(FLEXLLM_TOKENIZER_TESTS) + "/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) ADD_FAILURE() << "cannot read " << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline nlohmann::ordered_json read_golden(const std::string& name) {
  return nlohmann::ordered_json::parse(read_test_file("golden/" + name));
}

}  // namespace flexllm::tokenizer
