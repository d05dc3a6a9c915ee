// Kernels that are wrong in one bit: whatever runs layer 1 alone gets its first residual changed in
// the last place (prefill), or a K scale (decode). For the test of the self-test.
#include "accelerators/u280_combined.h"
#include "host/emulated_kernels/launch_arguments.h"
#include "kernels/contract/launch.h"

namespace {

namespace accelerator = flexllm::accelerator::u280_combined;
namespace kernels = flexllm::kernels;

struct Launch {
  flexllm::host::LaunchArguments<accelerator::weight_streams, accelerator::kv_streams> arguments;

  int run(const flexllm::card::Call& call) {
    if (const int error = arguments.read(call)) return error;
    kernels::twin::run(arguments.buffers, {256, 4096, 16384, 32, 32, 128, 131072, 262144});
    return 0;
  }
  std::uint32_t* field(const kernels::twin::Span& buffer, std::uint32_t index) {
    return reinterpret_cast<std::uint32_t*>(buffer.data) + index;
  }
  bool runs_layer_1() {
    return *field(arguments.buffers.desc, kernels::launch_field::layer_begin) == 1;
  }
};

[[maybe_unused]] int wrong_residual(const flexllm::card::Call& call) {
  Launch launch;
  const int error = launch.run(call);
  if (error == 0 && launch.runs_layer_1()) *launch.field(launch.arguments.buffers.result, 16) ^= 1u;
  return error;
}

int wrong_scale(const flexllm::card::Call& call) {
  Launch launch;
  const int error = launch.run(call);
  if (error != 0 || !launch.runs_layer_1()) return error;
  // The record of the first row: its page and token, from the descriptor.
  const auto& desc = launch.arguments.buffers.desc;
  namespace lf = kernels::launch_field;
  const std::uint32_t row = *launch.field(desc, lf::row_table) * 16;
  const std::uint32_t position = *launch.field(desc, row + kernels::row_field::position);
  const std::uint32_t sequence = *launch.field(desc, row + kernels::row_field::sequence);
  const std::uint32_t table =
      *launch.field(desc, lf::page_tables) + sequence * *launch.field(desc, lf::page_table_stride);
  const std::uint32_t page = *launch.field(desc, table * 16 + position / kernels::kPageTokens);
  const auto& model = launch.arguments.buffers.model;
  namespace mf = kernels::model_field;
  const kernels::KvLayout kv{*launch.field(model, mf::layers), *launch.field(model, mf::kv_heads),
                             *launch.field(model, mf::head_dim)};
  const std::uint32_t word = page / accelerator::kv_streams * kv.page_words() + kv.layer_words() +
                             position % kernels::kPageTokens * kv.scale_words();
  *launch.field(launch.arguments.kv[page % accelerator::kv_streams], word * 16) ^= 1u;
  return error;
}

#ifdef FLEXLLM_WRONG_DECODE_ONLY
int prefill(const flexllm::card::Call& call) { return Launch().run(call); }
#else
int prefill(const flexllm::card::Call& call) { return wrong_residual(call); }
#endif

}  // namespace

FLEXLLM_CARD_KERNEL(prefill, prefill)
FLEXLLM_CARD_KERNEL(decode, wrong_scale)
