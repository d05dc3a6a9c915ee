// Stand-ins for the kernels of every accelerator: they write where each argument lies into the
// result buffer, so that a test sees the host's memory map from the card's side.
#include <cstdint>

#include "host/card/kernel_abi.h"

namespace {

using flexllm::card::Call;

constexpr std::size_t kResult = 2;  // desc, model, result, scratch, w0.., kv0..

int addresses(const Call& call) {
  const auto result = call.buffer<std::uint64_t>(kResult);
  if (call.arguments() + 1 > result.count()) return -E2BIG;
  result[0] = call.arguments();
  for (std::size_t i = 0; i < call.arguments(); ++i) {
    if (call.buffer<char>(i).data == nullptr) return -EFAULT;
    result[i + 1] = call.scalar<std::uint64_t>(i);
  }
  return 0;
}

}  // namespace

FLEXLLM_CARD_KERNEL(prefill, addresses)
FLEXLLM_CARD_KERNEL(decode, addresses)
