// Memory maps and packed models that are damaged or do not belong together.
#include "host/model_header.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "host/tiny_model.h"
#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using Json = nlohmann::json;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("flexllm-model-header-test-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  tl::expected<MemoryMap, DeviceError> changed_map(const std::function<void(Json&)>& change) {
    Json json = Json::parse(std::ifstream(FLEXLLM_TEST_MEMORY_MAP));
    change(json);
    std::ofstream(folder_ / "map.json") << json;
    return read_memory_map(folder_ / "map.json");
  }

  std::filesystem::path folder_;
};

using MemoryMapFile = Files;
using ModelHeaderOf = Files;

TEST_F(MemoryMapFile, IsRead) {
  const auto map = changed_map([](Json&) {});
  ASSERT_TRUE(map.has_value()) << map.error().message;
  EXPECT_EQ(map->accelerator, "u280-combined");
  EXPECT_EQ(map->weight_streams, 16u);
  EXPECT_EQ(map->kv_streams, 8u);
  EXPECT_EQ(map->maxima.prefill_rows, 512u);
  ASSERT_NE(map->kernel("decode"), nullptr);
  EXPECT_EQ(map->kernel("recall"), nullptr);
  const KernelMap& decode = *map->kernel("decode");
  EXPECT_EQ(map->banks[decode.arguments[map->kv_argument(3)].bank].tag, "HBM[19]");
  EXPECT_EQ(decode.arguments[map->weight_argument(7)].name, "w7");
}

TEST_F(MemoryMapFile, ThatContradictsItselfIsRefused) {
  const auto refused = [&](const std::function<void(Json&)>& change, const std::string& why) {
    const auto map = changed_map(change);
    ASSERT_FALSE(map.has_value()) << why;
    EXPECT_EQ(map.error().kind, DeviceError::Kind::bad_bitstream);
    EXPECT_NE(map.error().message.find(why), std::string::npos) << map.error().message;
  };
  refused([](Json& j) { j.erase("maxima"); }, "maxima");
  refused([](Json& j) { j["kv_streams"] = 0; }, "kv_streams");
  refused([](Json& j) { j["kv_streams"] = "4"; }, "kv_streams");
  refused([](Json& j) { j["maxima"]["d"] = -1; }, "d is not");
  refused([](Json& j) { j["weight_streams"] = 15; }, "arguments");
  refused([](Json& j) { j["kernels"] = Json::array(); }, "no kernels");
  refused([](Json& j) { j["banks"] = Json::array(); }, "no banks");
  refused([](Json& j) { std::swap(j["banks"][0], j["banks"][1]); }, "index");
  refused([](Json& j) { j["kernels"][0]["arguments"][4]["name"] = "v0"; }, "'v0' instead of 'w0'");
  refused([](Json& j) { j["kernels"][0]["arguments"][4]["bank"] = 99; }, "bank");
  refused([](Json& j) { j["kernels"][0]["arguments"][4]["bank"] = 7; }, "different banks");
  refused([](Json& j) { j = Json::array(); }, "memory map");
  std::ofstream(folder_ / "text.json") << "{";
  EXPECT_FALSE(read_memory_map(folder_ / "text.json").has_value());
}

TEST_F(ModelHeaderOf, AModelThatFits) {
  write_tiny_model(folder_ / "tiny", 16);
  const formats::PackedModel model(folder_ / "tiny");
  const auto header = read_model_header(model, *changed_map([](Json&) {}));
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_EQ(header->layers, 2u);
  EXPECT_EQ(header->attention(), 256u);
  EXPECT_EQ(header->page_bytes(), 32u * 2 * (1 + 4 + 4) * 64);
}

TEST_F(ModelHeaderOf, AModelForAnotherAcceleratorIsRefused) {
  write_tiny_model(folder_ / "tiny", 8);
  const formats::PackedModel narrow(folder_ / "tiny");
  const auto streams = read_model_header(narrow, *changed_map([](Json&) {}));
  ASSERT_FALSE(streams.has_value());
  EXPECT_EQ(streams.error().kind, DeviceError::Kind::bad_model);
  EXPECT_NE(streams.error().message.find("8 weight streams; 'u280-combined' has 16"),
            std::string::npos)
      << streams.error().message;

  write_tiny_model(folder_ / "wide", 16);
  const formats::PackedModel model(folder_ / "wide");
  const auto large =
      read_model_header(model, *changed_map([](Json& j) { j["maxima"]["ffn"] = 511; }));
  ASSERT_FALSE(large.has_value());
  EXPECT_NE(large.error().message.find("feed-forward size 512 is more than the accelerator's 511"),
            std::string::npos)
      << large.error().message;
}

// Every offset of the model buffer is checked: none may lead outside.
TEST_F(ModelHeaderOf, ADamagedModelBufferIsRefused) {
  write_tiny_model(folder_ / "tiny", 16);
  const MemoryMap map = *changed_map([](Json&) {});
  const formats::PackedModel whole(folder_ / "tiny");
  const std::span<const std::byte> buffer = whole.model_buffer();
  std::ifstream in(folder_ / "tiny", std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)), {});
  const size_t at = file.find(
      std::string(reinterpret_cast<const char*>(buffer.data()), 128));  // the header's own bytes
  ASSERT_NE(at, std::string::npos);

  const auto with = [&](size_t field, uint32_t value) {
    std::string damaged = file;
    damaged.replace(at + field * 4, 4, reinterpret_cast<const char*>(&value), 4);
    std::ofstream(folder_ / "damaged", std::ios::binary) << damaged;
    const formats::PackedModel model(folder_ / "damaged");
    return read_model_header(model, map);
  };
  namespace mf = kernels::model_field;
  for (const uint32_t field :
       {mf::magic, mf::version, mf::layers, mf::hidden, mf::heads, mf::kv_heads, mf::head_dim,
        mf::ffn, mf::vocab, mf::weight_streams, mf::rope, mf::layer_table, mf::final_norm,
        mf::lm_head, mf::lm_head_precision}) {
    for (const uint32_t value : {0x7fffffffu, 0xffffffffu}) {
      EXPECT_FALSE(with(field, value).has_value()) << "field " << field << " = " << value;
    }
  }
  namespace lf = kernels::layer_field;
  for (const uint32_t field : {lf::qkv, lf::o, lf::gate_up, lf::down, lf::qkv_precision,
                               lf::attention_norm, lf::ffn_norm, lf::q_norm, lf::k_norm}) {
    const size_t second_layer = size_t{mf::fields} + lf::fields + field;
    EXPECT_FALSE(with(second_layer, 0x7fffffffu).has_value()) << "layer field " << field;
  }
  EXPECT_TRUE(with(mf::rms_eps, 0).has_value());
}

}  // namespace
}  // namespace flexllm::host
