#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "formats/tests/expect_error.h"
#include "formats/tests/files.h"
#include "formats/tests/tiny_model.h"

namespace flexllm::formats {
namespace {

using testing::bytes_of;
using testing::expect_error;
using testing::raw_safetensors;
using testing::read_whole;
using testing::TemporaryFolder;

std::string with_header(const std::string& header, const std::string& data) {
  return bytes_of(uint64_t{header.size()}) + header + data;
}

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsFile open(const std::string& bytes) {
    return SafetensorsFile(folder_.write("a.safetensors", bytes));
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "out.safetensors";
};

TEST_F(SafetensorsTest, ReadsEveryPlainType) {
  std::vector<testing::RawTensor> tensors;
  for (const auto& [type, size] : std::vector<std::pair<std::string, size_t>>{{"F32", 4},
                                                                              {"F16", 2},
                                                                              {"BF16", 2},
                                                                              {"F64", 8},
                                                                              {"U8", 1},
                                                                              {"I8", 1},
                                                                              {"U16", 2},
                                                                              {"I16", 2},
                                                                              {"U32", 4},
                                                                              {"I32", 4},
                                                                              {"U64", 8},
                                                                              {"I64", 8}}) {
    tensors.push_back({"t." + type, type, {2, 3}, std::string(6 * size, type[0])});
  }
  tensors.push_back({"scalar", "U8", {}, "x"});
  tensors.push_back({"empty", "F32", {3, 0}, ""});
  const SafetensorsFile file = open(raw_safetensors(tensors));
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const auto& expected : tensors) {
    const SafetensorsTensor* tensor = file.find(expected.name);
    ASSERT_NE(tensor, nullptr) << expected.name;
    EXPECT_EQ(name_of(tensor->type), expected.type);
    EXPECT_EQ(tensor->shape, expected.shape);
    ASSERT_EQ(tensor->data.size(), expected.data.size());
    EXPECT_TRUE(std::ranges::equal(tensor->data, as_bytes(expected.data)));
  }
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST_F(SafetensorsTest, RefusesWhatContradictsItself) {
  const auto one = [](const std::string& entry, const std::string& data) {
    return with_header("{\"t\":" + entry + "}", data);
  };
  const struct {
    std::string bytes;
    std::vector<std::string> message;
  } cases[] = {
      {"", {"byte 0", "8 bytes"}},
      {bytes_of(uint64_t{100}) + "{}", {"100 bytes", "2 more"}},
      {bytes_of(~uint64_t{0}) + "{}", {"byte 0"}},
      {with_header("[]", ""), {"object"}},
      {with_header("{", ""), {"header", "JSON"}},
      {with_header("{\"t\":1}", ""), {"'t'", "object"}},
      {with_header("{\"__metadata__\":{\"a\":1}}", ""), {"__metadata__.a", "string"}},
      {with_header("{}", "x"), {"belong to no tensor"}},
      {one(R"({"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]})", "x"), {"t.dtype", "F8_E5M2"}},
      {one(R"({"dtype":"Q4_0","shape":[32],"data_offsets":[0,18]})", std::string(18, 'x')),
       {"t.dtype", "Q4_0"}},
      {one(R"({"shape":[1],"data_offsets":[0,1]})", "x"), {"t.dtype", "missing"}},
      {one(R"({"dtype":"U8","data_offsets":[0,1]})", "x"), {"t.shape"}},
      {one(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})", "x"), {"t.shape"}},
      {one(R"({"dtype":"U8","shape":[1.0],"data_offsets":[0,1]})", "x"), {"t.shape"}},
      {one(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", "x"), {"t.shape"}},
      {one(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", ""),
       {"t.shape", "2^48"}},
      {one(R"({"dtype":"U8","shape":[1]})", "x"), {"t.data_offsets"}},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", "x"), {"t.data_offsets"}},
      {one(R"({"dtype":"U8","shape":[2],"data_offsets":[0,1]})", "x"), {"t.data_offsets", "2"}},
      {one(R"({"dtype":"U8","shape":[2],"data_offsets":[0,2]})", "x"), {"'t'", "end by 1"}},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", "xx"), {"'t'", "begin at 0"}},
      {with_header(R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                   R"("u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                   "xxx"),
       {"'u'", "begin at 2"}},
      {with_header(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                   R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                   "xx"),
       {"'t'", "twice"}},
  };
  for (const auto& [bytes, message] : cases) {
    expect_error([&, &b = bytes] { open(b); }, message);
  }
}

TEST_F(SafetensorsTest, WritesWhatItReads) {
  std::vector<uint8_t> planes(300);
  std::iota(planes.begin(), planes.end(), uint8_t{0});
  const std::vector<float> scales = {1.5f, -2.0f};
  const std::map<std::string, std::string> metadata = {{"format", "test"}, {"text", "Grüße \"\n"}};
  {
    SafetensorsWriter writer(path_,
                             {{"planes", DType::u8, {3, 100}},
                              {"none", DType::i32, {0}},
                              {"scales", DType::f32, {2}},
                              {"scalar", DType::u32, {}}},
                             1000);
    const auto bytes = std::as_bytes(std::span(planes));
    writer.write("planes", bytes.first(100));
    writer.write("planes", {});
    writer.write("planes", bytes.subspan(100));
    writer.write("none", {});
    writer.write("scales", std::as_bytes(std::span(scales)));
    writer.write("scalar", as_bytes(bytes_of(uint32_t{7})));
    EXPECT_FALSE(std::filesystem::exists(path_)) << "nothing is in place before the commit";
    writer.commit(metadata);
    expect_error([&] { writer.commit(metadata); }, {"committed"});
  }
  EXPECT_THAT(files(), ::testing::ElementsAre("out.safetensors"));
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_TRUE(std::ranges::equal(file.find("planes")->data, std::as_bytes(std::span(planes))));
  EXPECT_THAT(file.find("planes")->shape, ::testing::ElementsAre(3, 100));
  EXPECT_TRUE(std::ranges::equal(file.find("scales")->data, std::as_bytes(std::span(scales))));
  EXPECT_EQ(file.find("scalar")->data[0], std::byte{7});
  const auto* begin = file.find("planes")->data.data();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(begin) % 64, 0u) << "data begin at a multiple of 64";
}

TEST_F(SafetensorsTest, GivesTheFileTheModeOfAnyNewFile) {
  SafetensorsWriter(path_, {}, 0).commit({});
  const auto other = folder_.write("other", "");
  EXPECT_EQ(std::filesystem::status(path_).permissions(),
            std::filesystem::status(other).permissions());
  EXPECT_TRUE(SafetensorsFile(path_).tensors().empty());
}

TEST_F(SafetensorsTest, LeavesNothingWithoutACommit) {
  folder_.write("out.safetensors", "old");
  {
    SafetensorsWriter writer(path_, {{"t", DType::u8, {4}}}, 10);
    writer.write("t", as_bytes("abc"));
    expect_error([&] { writer.commit({}); }, {"'t'", "3 of its 4 bytes"});
  }
  EXPECT_THAT(files(), ::testing::ElementsAre("out.safetensors"));
  EXPECT_EQ(read_whole(path_), "old");
}

// A child is killed while it writes.
TEST_F(SafetensorsTest, RemovesWhatAKilledWriterHasLeft) {
  const pid_t child = ::fork();
  if (child == 0) {
    SafetensorsWriter writer(path_, {{"t", DType::u8, {4}}}, 10);
    writer.write("t", as_bytes("abc"));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const std::string abandoned = "out.safetensors.partial-" + std::to_string(child) + "-0";
  ASSERT_THAT(files(), ::testing::ElementsAre(abandoned));
  // Neither a writer at work nor what only looks alike is touched.
  const std::vector<std::string> others = {
      "ut.safetensors.partial-1-0", "out.safetensors.partial", "out.safetensors.partial-1",
      "out.safetensors.partial-1-", "out.safetensors.partial-1-0.txt"};
  for (const std::string& name : others) folder_.write(name, "");
  SafetensorsWriter first(path_, {{"t", DType::u8, {1}}}, 10);
  EXPECT_THAT(files(), ::testing::Not(::testing::Contains(abandoned)));
  SafetensorsWriter second(path_, {{"t", DType::u8, {1}}}, 10);
  for (SafetensorsWriter* writer : {&second, &first}) {
    writer->write("t", as_bytes(writer == &first ? "1" : "2"));
    writer->commit({});
  }
  std::vector<std::string> left = others;
  left.emplace_back("out.safetensors");
  EXPECT_THAT(files(), ::testing::UnorderedElementsAreArray(left));
  EXPECT_EQ(read_whole(path_).back(), '1') << "the last rename wins";
}

TEST_F(SafetensorsTest, RefusesToWriteWhatWasNotAnnounced) {
  const auto writer_of = [&](std::vector<SafetensorsHead> heads) {
    return SafetensorsWriter(path_, std::move(heads), 100);
  };
  expect_error([&] { writer_of({{"t", DType::q4_0, {32}}}); }, {"'t'"});
  expect_error(
      [&] {
        writer_of({{"t", DType::u8, {1}}, {"t", DType::u8, {1}}});
      },
      {"'t'", "taken"});
  expect_error([&] { writer_of({{"__metadata__", DType::u8, {1}}}); }, {"taken"});
  expect_error([&] { writer_of({{"t", DType::u8, {1u << 31, 1u << 31}}}); }, {"'t'"});
  expect_error([&] { writer_of({{"\xff", DType::u8, {1}}}); }, {"UTF-8"});
  SafetensorsWriter writer(path_, {{"a", DType::u8, {2}}, {"b", DType::u8, {1}}}, 100);
  expect_error([&] { writer.write("b", as_bytes("x")); }, {"'b'", "expected bytes of tensor 'a'"});
  expect_error([&] { writer.write("a", as_bytes("xyz")); }, {"'a'", "2 announced"});
  writer.write("a", as_bytes("xy"));
  writer.write("b", as_bytes("z"));
  expect_error([&] { writer.write("c", as_bytes("x")); }, {"'c'", "all tensors"});
  expect_error([&] { writer.commit({{"key", std::string(200, 'x')}}); }, {"capacity"});
  expect_error([&] { writer.commit({{"key", "\xff"}}); }, {"UTF-8"});
  EXPECT_NO_THROW(writer.commit({{"key", "value"}}));
  expect_error([&] { SafetensorsWriter(folder_.path() / "absent" / "x", {}, 0); }, {"absent"});
}

// The file-size limit of a process stands in for a full disk: `write` comes back short, then fails.
TEST_F(SafetensorsTest, LeavesNothingWhenTheDiskIsFull) {
  folder_.write("out.safetensors", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    SafetensorsWriter writer(path_, {{"t", DType::u8, {1 << 20}}}, 100);
    const std::string megabyte(1 << 20, 'x');
    expect_error([&] { writer.write("t", as_bytes(megabyte)); },
                 {"out.safetensors", "cannot write"});
    EXPECT_THAT(files(), ::testing::ElementsAre("out.safetensors")) << "at once";
    expect_error([&] { writer.write("t", as_bytes(megabyte)); }, {"has failed"});
    expect_error([&] { writer.commit({}); }, {"has failed"});
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(files(), ::testing::ElementsAre("out.safetensors"));
  EXPECT_EQ(read_whole(path_), "old");
}

}  // namespace
}  // namespace flexllm::formats
