// For tests against tests/reference/: logits of a checkpoint in the float model.
//
//   quantizer_run_float_model CHECKPOINT REQUEST.json LOGITS
//
// REQUEST: "windows", lists of token ids; "activations", [qkv, o, gate_up, down] for each layer or
// once, each [bits, clip, symmetric]; "lm_head", [bits, clip, symmetric]; "int8_attention";
// "probability_bits"; "rotate_down"; "threads". LOGITS: binary32, [tokens][vocab], windows one
// after the other.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "quantizer/float_model/float_model.h"

namespace flexllm::quantizer {
namespace {

void run(const char* checkpoint_path, const char* request_path, const char* out_path) {
  const nlohmann::json request = nlohmann::json::parse(std::ifstream(request_path));
  const auto checkpoint = formats::open_checkpoint(checkpoint_path);
  FloatOptions options;
  const auto rounding = [](const nlohmann::json& row) {
    return RowRounding{row.at(0), row.at(1), row.at(2)};
  };
  for (const auto& layer : request.at("activations")) {
    options.activations.push_back({rounding(layer.at(0)), rounding(layer.at(1)),
                                   rounding(layer.at(2)), rounding(layer.at(3))});
  }
  options.lm_head = rounding(request.at("lm_head"));
  options.int8_attention = request.at("int8_attention");
  options.probability_bits = request.at("probability_bits");
  options.rotate_down = request.at("rotate_down");
  Workers workers(request.at("threads"));
  const FloatModel model(*checkpoint, options, workers);
  const auto windows = request.at("windows").get<std::vector<std::vector<uint32_t>>>();
  const TokenBatch batch =
      model.run(std::vector<std::span<const uint32_t>>(windows.begin(), windows.end()));
  Matrix all(batch.tokens(), model.config().vocab);
  model.for_logits(model.head_inputs(batch), [&](uint32_t first, ConstView logits) {
    for (size_t r = 0; r < logits.rows; ++r) {
      std::ranges::copy(logits.row(r), all.row(r).subspan(first).begin());
    }
  });
  std::ofstream out(out_path, std::ios::binary);
  const auto bytes = std::as_bytes(all.elements());
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write the logits");
}

}  // namespace
}  // namespace flexllm::quantizer

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    flexllm::quantizer::run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
