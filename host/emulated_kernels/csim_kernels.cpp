// The kernels of an emulated bitstream as their C simulation: the source that v++ compiles, task by
// task. Built once for each accelerator, whose header is FLEXLLM_ACCELERATOR_HEADER and whose
// namespace is FLEXLLM_ACCELERATOR.
#include "host/emulated_kernels/launch_arguments.h"
#include "kernels/hls/simulation.h"
#include "kernels/tops/csim.h"
#include FLEXLLM_ACCELERATOR_HEADER

namespace {

namespace accelerator = flexllm::accelerator::FLEXLLM_ACCELERATOR;
namespace kernels = flexllm::kernels;
using Arguments =
    flexllm::host::LaunchArguments<accelerator::weight_streams, accelerator::kv_streams>;

int run(const flexllm::card::Call& call,
        std::uint32_t (*kernel)(const kernels::twin::Buffers& buffers)) {
  Arguments arguments;
  if (const int error = arguments.read(call)) return error;
  // Tasks in turn give the bits of tasks at once, and a token in less than a minute.
  const kernels::simulation::Scope scope({.mode = kernels::simulation::Mode::sequential});
  try {
    kernel(arguments.buffers);  // a refused launch says so in its completion record
    return 0;
  } catch (const kernels::simulation::Error& error) {
    call.report(error.what());
    return -EIO;
  }
}

int run_prefill(const flexllm::card::Call& call) { return run(call, kernels::csim::run_prefill); }
int run_decode(const flexllm::card::Call& call) { return run(call, kernels::csim::run_decode); }

}  // namespace

FLEXLLM_CARD_KERNEL(prefill, run_prefill)
FLEXLLM_CARD_KERNEL(decode, run_decode)
