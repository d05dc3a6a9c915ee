// The kernels of an emulated bitstream as their fast twins. Built once for each accelerator, whose
// header is FLEXLLM_ACCELERATOR_HEADER and whose namespace is FLEXLLM_ACCELERATOR.
#include "host/emulated_kernels/launch_arguments.h"
#include FLEXLLM_ACCELERATOR_HEADER

namespace {

namespace accelerator = flexllm::accelerator::FLEXLLM_ACCELERATOR;
namespace maxima = accelerator::maxima;
using Arguments =
    flexllm::host::LaunchArguments<accelerator::weight_streams, accelerator::kv_streams>;

int run(const flexllm::card::Call& call, std::uint32_t rows) {
  Arguments arguments;
  if (const int error = arguments.read(call)) return error;
  // A refused launch says so in its completion record, as on the card.
  flexllm::kernels::twin::run(arguments.buffers, {.rows = rows,
                                                  .hidden = maxima::d,
                                                  .ffn = maxima::ffn,
                                                  .heads = maxima::heads,
                                                  .kv_heads = maxima::kv_heads,
                                                  .head_dim = maxima::head_dim,
                                                  .context = maxima::context,
                                                  .vocab = maxima::vocabulary});
  return 0;
}

int run_prefill(const flexllm::card::Call& call) { return run(call, maxima::prefill_rows); }
int run_decode(const flexllm::card::Call& call) { return run(call, maxima::batch); }

}  // namespace

FLEXLLM_CARD_KERNEL(prefill, run_prefill)
FLEXLLM_CARD_KERNEL(decode, run_decode)
