// A tiny packed model and an engine for it on the emulated card that the test program runs on.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "formats/packed_model.h"
#include "host/engine.h"
#include "host/tiny_model.h"

namespace flexllm::host {

class EngineTest : public testing::Test {
 protected:
  static constexpr uint32_t kStreams = 16;  // of u280-combined

  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("flexllm-engine-test-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    write_tiny_model(folder_ / "tiny.flexllm", kStreams);
    model_ = std::make_shared<const formats::PackedModel>(folder_ / "tiny.flexllm");
    options_.bitstream = FLEXLLM_TEST_BITSTREAM;
    options_.max_kv_bytes = 16u << 20;
  }
  void TearDown() override {
    model_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<Engine> open() {
    auto engine = Engine::open(options_, model_);
    EXPECT_TRUE(engine.has_value()) << engine.error().message;
    return engine ? std::move(*engine) : nullptr;
  }

  std::filesystem::path folder_;
  std::shared_ptr<const formats::PackedModel> model_;
  EngineOptions options_;
};

// Rows first..first + tokens.size() - 1 of sequence 0; all outputs of the last one.
inline Launch chunk(Stage stage, std::span<const PageId> pages, uint32_t first,
                    const std::vector<uint32_t>& tokens) {
  Launch launch;
  launch.stage = stage;
  launch.sequences = {pages};
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    Row row;
    row.position = first + i;
    row.token = tokens[i];
    launch.rows.push_back(row);
  }
  launch.rows.back().outputs = {
      .residual = true, .final_norm = true, .target_logprob = true, .row_result = true};
  return launch;
}

inline std::vector<uint32_t> tokens(uint32_t count, uint32_t seed = 0) {
  std::vector<uint32_t> out(count);
  for (uint32_t i = 0; i < count; ++i) out[i] = (i * 37 + seed * 101 + 5) % 1024;
  return out;
}

}  // namespace flexllm::host
