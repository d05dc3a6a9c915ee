#include "formats/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/tests/files.h"

namespace flexllm::formats {
namespace {

std::vector<std::byte> from_hex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

DType type_of(const std::string& name) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q4_1,
                           DType::q8_0, DType::q4_k, DType::q6_k}) {
    if (name_of(type) == name) return type;
  }
  throw std::runtime_error("no type " + name);
}

// The golden values come from the `gguf` Python package (tests/make_golden.py).
TEST(ToF32, EqualsTheGgufPackageBitForBit) {
  const auto cases = nlohmann::json::parse(
      testing::read_whole(std::string(FLEXLLM_FORMATS_GOLDEN) + "/dequantize.json"));
  std::set<std::string> seen;
  for (const auto& golden : cases) {
    const auto name = golden.at("type").get<std::string>();
    SCOPED_TRACE(name);
    seen.insert(name);
    const auto bytes = from_hex(golden.at("bytes"));
    const auto expected = from_hex(golden.at("floats"));
    std::vector<float> values(expected.size() / sizeof(float));
    to_f32(type_of(name), bytes, values);
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, expected.data() + 4 * i, 4);
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), bits) << "element " << i;
    }
  }
  EXPECT_EQ(seen,
            (std::set<std::string>{"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"}));
}

TEST(ToF32, GivesEveryHalfItsValue) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size());
  to_f32(DType::f16, std::as_bytes(std::span(halves)), values);
  for (size_t i = 0; i < halves.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31);
    const auto mantissa = static_cast<double>(i & 1023);
    const double sign = i >> 15 == 1 ? -1 : 1;
    if (exponent == 31 && mantissa != 0) {
      ASSERT_TRUE(std::isnan(values[i])) << i;
      continue;
    }
    double expected = std::ldexp(mantissa, -24);
    if (exponent > 0) expected = std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) expected = INFINITY;
    ASSERT_EQ(static_cast<double>(values[i]), sign * expected) << i;
    ASSERT_EQ(std::signbit(values[i]), sign < 0) << i;
  }
}

TEST(ToF32, TakesUnalignedBytes) {
  const std::vector<float> floats = {1.5f, -2.25f, 3e-40f};
  std::vector<std::byte> bytes(1 + sizeof(float) * floats.size());
  std::memcpy(bytes.data() + 1, floats.data(), bytes.size() - 1);
  std::vector<float> values(floats.size());
  to_f32(DType::f32, std::span(bytes).subspan(1), values);
  EXPECT_EQ(values, floats);
}

TEST(ToF32, RefusesSizesAndTypesThatDoNotFit) {
  const std::vector<std::byte> bytes(36);
  std::vector<float> values(64);
  EXPECT_NO_THROW(to_f32(DType::q4_0, bytes, values));
  EXPECT_THROW(to_f32(DType::q4_0, std::span(bytes).first(35), values), Error);
  EXPECT_THROW(to_f32(DType::q4_0, bytes, std::span(values).first(32)), Error);
  EXPECT_THROW(to_f32(DType::q4_0, bytes, std::span(values).first(63)), Error);
  EXPECT_THROW(to_f32(DType::u8, bytes, std::span(values).first(36)), Error);
  EXPECT_NO_THROW(to_f32(DType::f32, {}, {}));
}

}  // namespace
}  // namespace flexllm::formats
