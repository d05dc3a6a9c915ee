// The kernels of an emulated bitstream as their fast twins: hands the arguments of a launch, as the
// emulated card decodes them, to kernels::twin::run. Built once for each accelerator, whose header
// is FLEXLLM_ACCELERATOR_HEADER and whose namespace is FLEXLLM_ACCELERATOR.
#include <array>
#include <cerrno>

#include "host/card/kernel_abi.h"
#include "kernels/twin/twin.h"
#include FLEXLLM_ACCELERATOR_HEADER

namespace {

namespace accelerator = flexllm::accelerator::FLEXLLM_ACCELERATOR;
namespace twin = flexllm::kernels::twin;

constexpr std::size_t kFirstArena = 4;  // after desc, model, result, scratch

twin::Span span_of(const flexllm::card::Call& call, std::size_t argument) {
  const auto buffer = call.buffer<std::byte>(argument);
  return {buffer.data, buffer.bytes};
}

int run(const flexllm::card::Call& call, std::uint32_t rows) {
  std::array<twin::Span, accelerator::weight_streams> weights;
  std::array<twin::Span, accelerator::kv_streams> kv;
  if (call.arguments() != kFirstArena + weights.size() + kv.size()) {
    call.report("the bitstream has another number of arguments than this build");
    return -EINVAL;
  }
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = span_of(call, kFirstArena + i);
  for (std::size_t i = 0; i < kv.size(); ++i) {
    kv[i] = span_of(call, kFirstArena + weights.size() + i);
  }
  const twin::Buffers buffers{.desc = span_of(call, 0),
                              .model = span_of(call, 1),
                              .result = span_of(call, 2),
                              .scratch = span_of(call, 3),
                              .weights = weights,
                              .kv = kv};
  for (std::size_t i = 0; i < call.arguments(); ++i) {
    if (span_of(call, i).data == nullptr) {
      call.report("an address argument lies in no bank");
      return -EFAULT;
    }
  }
  // A refused launch says so in its completion record, as on the card.
  twin::run(buffers, {.rows = rows,
                      .hidden = accelerator::maxima::d,
                      .ffn = accelerator::maxima::ffn,
                      .heads = accelerator::maxima::heads,
                      .kv_heads = accelerator::maxima::kv_heads,
                      .head_dim = accelerator::maxima::head_dim,
                      .context = accelerator::maxima::context,
                      .vocab = accelerator::maxima::vocabulary});
  return 0;
}

int run_prefill(const flexllm::card::Call& call) {
  return run(call, accelerator::maxima::prefill_rows);
}
int run_decode(const flexllm::card::Call& call) { return run(call, accelerator::maxima::batch); }

}  // namespace

FLEXLLM_CARD_KERNEL(prefill, run_prefill)
FLEXLLM_CARD_KERNEL(decode, run_decode)
