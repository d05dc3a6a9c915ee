#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/tests/expect_error.h"
#include "formats/tests/gguf_builder.h"

namespace flexllm::formats {
namespace {

using testing::bytes_of;
using testing::bytes_of_all;
using testing::expect_error;
using testing::GgufBuilder;
using testing::TemporaryFolder;

class GgufTest : public ::testing::Test {
 protected:
  GgufFile open(const GgufBuilder& builder) { return open(builder.build()); }
  GgufFile open(const std::string& bytes) { return GgufFile(folder_.write("a.gguf", bytes)); }

  TemporaryFolder folder_;
};

GgufBuilder with_tensors() {
  GgufBuilder builder;
  builder.tensors = {{"a", {2, 3}, 0, bytes_of_all<float>({1, 2, 3, 4, 5, 6})},
                     {"b", {1, 64}, 2, std::string(36, '\x01')},
                     {"c", {5}, 1, std::string(10, '\0')}};
  return builder;
}

TEST_F(GgufTest, ReadsEveryMetadataType) {
  GgufBuilder builder;
  builder.set("u8", 0, bytes_of(uint8_t{200}));
  builder.set("i8", 1, bytes_of(int8_t{100}));
  builder.set("u16", 2, bytes_of(uint16_t{60000}));
  builder.set("i16", 3, bytes_of(int16_t{30000}));
  builder.set("u32", 4, bytes_of(uint32_t{4000000000}));
  builder.set("i32", 5, bytes_of(int32_t{2000000000}));
  builder.set("f32", 6, bytes_of(0.5f));
  builder.set_bool("bool", true);
  builder.set_string("string", "text");
  builder.set("u64", 10, bytes_of(uint64_t{1} << 40));
  builder.set("i64", 11, bytes_of(int64_t{1} << 41));
  builder.set("f64", 12, bytes_of(0.1));
  builder.set_strings("strings", {"one", "", "three"});
  builder.set_array("floats", 6, 2, bytes_of_all<float>({1.5f, -2}));
  builder.set_array("integers", 5, 2, bytes_of_all<int32_t>({-7, 8}));
  builder.set_array("nested", 9, 2,
                    bytes_of(uint32_t{4}) + bytes_of(uint64_t{1}) + bytes_of(uint32_t{9}) +
                        bytes_of(uint32_t{8}) + bytes_of(uint64_t{1}) + GgufBuilder::text("x"));
  builder.set_u32("last", 7);
  const GgufFile file = open(builder);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.find_uint("u8"), 200u);
  EXPECT_EQ(file.find_uint("i8"), 100u);
  EXPECT_EQ(file.find_uint("u16"), 60000u);
  EXPECT_EQ(file.find_uint("i16"), 30000u);
  EXPECT_EQ(file.find_uint("u32"), 4000000000u);
  EXPECT_EQ(file.find_uint("i32"), 2000000000u);
  EXPECT_EQ(file.find_uint("u64"), uint64_t{1} << 40);
  EXPECT_EQ(file.find_uint("i64"), uint64_t{1} << 41);
  EXPECT_EQ(file.find_number("f32"), 0.5);
  EXPECT_EQ(file.find_number("f64"), 0.1);
  EXPECT_EQ(file.find_number("u8"), 200.0);
  EXPECT_EQ(file.find_bool("bool"), true);
  EXPECT_EQ(file.find_string("string"), "text");
  std::vector<std::string> strings;
  EXPECT_TRUE(
      file.for_each_string("strings", [&](std::string_view s) { strings.emplace_back(s); }));
  EXPECT_THAT(strings, ::testing::ElementsAre("one", "", "three"));
  EXPECT_THAT(file.floats("floats"), ::testing::ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(file.integers("integers"), ::testing::ElementsAre(-7, 8));
  ASSERT_NE(file.find("nested"), nullptr);
  EXPECT_EQ(file.find("nested")->element, GgufType::array);
  EXPECT_EQ(file.find_uint("last"), 7u) << "what follows a nested array is found";
  EXPECT_EQ(file.find_uint("absent"), std::nullopt);
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST_F(GgufTest, SaysWhichKeyIsOfAnotherKind) {
  GgufBuilder builder;
  builder.set_string("name", "text");
  builder.set("negative", 5, bytes_of(int32_t{-1}));
  builder.set("huge", 10, bytes_of(~uint64_t{0}));
  builder.set_f32("nan", std::numeric_limits<float>::quiet_NaN());
  const GgufFile file = open(builder);
  expect_error([&] { file.find_uint("name"); }, {"a.gguf", "'name'", "integer", "string"});
  expect_error([&] { file.find_uint("negative"); }, {"'negative'"});
  expect_error([&] { file.find_uint("huge"); }, {"'huge'"});
  expect_error([&] { file.find_number("nan"); }, {"'nan'", "finite"});
  expect_error([&] { file.find_bool("name"); }, {"'name'", "bool"});
  expect_error([&] { file.find_string("negative"); }, {"'negative'", "int32"});
  expect_error([&] { file.floats("name"); }, {"'name'", "array of float32"});
  expect_error([&] { file.integers("name"); }, {"'name'", "array of int32"});
  expect_error([&] { file.for_each_string("name", [](std::string_view) {}); },
               {"'name'", "array of strings"});
}

TEST_F(GgufTest, FindsTensorsWhereTheyLie) {
  for (const uint64_t alignment : {8, 32, 64, 4096}) {
    SCOPED_TRACE(alignment);
    GgufBuilder builder = with_tensors();
    builder.alignment = alignment;
    builder.set_u32("general.alignment", static_cast<uint32_t>(alignment));
    const GgufFile file = open(builder);
    EXPECT_EQ(file.alignment(), alignment);
    ASSERT_EQ(file.tensors().size(), 3u);
    const GgufTensor* a = file.find_tensor("a");
    ASSERT_NE(a, nullptr);
    EXPECT_THAT(a->shape, ::testing::ElementsAre(2, 3)) << "outermost first";
    std::vector<float> values(6);
    to_f32(a->type, a->data, values);
    EXPECT_THAT(values, ::testing::ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_EQ(file.find_tensor("b")->data.size(), 36u);
    EXPECT_EQ(file.find_tensor("b")->data[35], std::byte{1});
    EXPECT_EQ(file.find_tensor("c")->data.size(), 10u);
    EXPECT_EQ(file.find_tensor("d"), nullptr);
  }
}

TEST_F(GgufTest, ReadsVersion2AndRefusesOthers) {
  GgufBuilder builder = with_tensors();
  builder.version = 2;
  EXPECT_EQ(open(builder).tensors().size(), 3u);
  builder.version = 1;
  expect_error([&] { open(builder); }, {"version 1", "2 or 3"});
  builder.version = 0x03000000;
  expect_error([&] { open(builder); }, {"big-endian"});
  expect_error([&] { open(std::string("GGML....")); }, {"byte 0", "GGUF"});
  expect_error([&] { open(std::string()); }, {"GGUF"});
}

TEST_F(GgufTest, RefusesWhatContradictsItself) {
  const auto changed = [](const std::function<void(GgufBuilder&)>& change) {
    GgufBuilder builder = with_tensors();
    change(builder);
    return builder;
  };
  const struct {
    GgufBuilder builder;
    std::vector<std::string> message;
  } cases[] = {
      {changed([](auto& b) { b.set("split.count", 2, bytes_of(uint16_t{3})); }),
       {"split.count", "3 parts"}},
      {changed([](auto& b) { b.set_u32("general.alignment", 0); }), {"general.alignment"}},
      {changed([](auto& b) { b.set_u32("general.alignment", 24); }), {"general.alignment"}},
      {changed([](auto& b) { b.set_u32("general.alignment", 64); }), {"'b'", "multiple of 64"}},
      {changed([](auto& b) { b.set("x", 13, ""); }), {"'x'", "type 13"}},
      {changed([](auto& b) { b.set("x", 7, "\x02"); }), {"'x'", "bool"}},
      {changed([](auto& b) { b.set_array("x", 4, uint64_t{1} << 62, ""); }), {"'x'", "fit"}},
      {changed([](auto& b) {
         std::string deep;
         for (int i = 0; i < 8; ++i) deep += bytes_of(uint32_t{9}) + bytes_of(uint64_t{1});
         b.set_array("x", 9, 1, deep + bytes_of(uint32_t{0}) + bytes_of(uint64_t{0}));
       }),
       {"'x'", "deeply"}},
      {changed([](auto& b) {
         b.set_u32("x", 1);
         b.metadata.push_back(b.metadata.back());
       }),
       {"'x'", "twice"}},
      {changed([](auto& b) { b.tensors[1].name = "a"; }), {"'a'", "twice"}},
      {changed([](auto& b) { b.tensors[1].type = 13; }), {"'b'", "type 13", "Q4_K"}},
      {changed([](auto& b) {
         b.tensors[1].shape = {2, 16};
       }),
       {"'b'", "blocks"}},
      {changed([](auto& b) {
         b.tensors[1].shape = {0, 32};
       }),
       {"'b'", "zero"}},
      {changed([](auto& b) {
         b.tensors[1].shape = {uint64_t{1} << 40, 1 << 20};
       }),
       {"'b'", "2^48"}},
      {changed([](auto& b) {
         b.tensors[1].shape = {1, 1, 1, 1, 32};
       }),
       {"'b'", "5 dimensions"}},
      {changed([](auto& b) { b.tensors[1].shape = {}; }), {"'b'", "0 dimensions"}},
      {changed([](auto& b) {
         b.tensors[0].shape = {3, 4};
       }),
       {"'b'", "overlaps", "'a'"}},
      {changed([](auto& b) { b.tensors[2].shape = {50}; }), {"'c'", "beyond the file"}},
  };
  for (const auto& [builder, message] : cases) {
    expect_error([&] { open(builder); }, message);
  }
}

TEST_F(GgufTest, RefusesEveryCut) {
  GgufBuilder builder = with_tensors();
  builder.set_strings("strings", {"one", "two"});
  builder.set_u32("x", 1);
  const std::string whole = builder.build();
  const size_t padding = 32 - 10;  // after the last tensor, which needs 10 bytes
  for (size_t size = 0; size < whole.size() - padding; ++size) {
    EXPECT_THROW(open(whole.substr(0, size)), Error) << size;
  }
  EXPECT_NO_THROW(open(whole.substr(0, whole.size() - padding)));
}

TEST_F(GgufTest, RefusesWhatIsNotAFile) {
  expect_error([&] { GgufFile(folder_.path() / "absent"); }, {"absent", "cannot open"});
  expect_error([&] { GgufFile(folder_.path()); }, {"regular file"});
}

}  // namespace
}  // namespace flexllm::formats
