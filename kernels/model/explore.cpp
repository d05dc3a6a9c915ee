#include "kernels/model/explore.h"

#include <algorithm>

#include "kernels/model/placement.h"

namespace flexllm::kernels::model {
namespace {

struct Choice {
  Kernel kernel;
  double seconds;
  Resources use;
};

bool within(const Resources& use, const Resources& usable, double share) {
  return use.dsp <= share * usable.dsp && use.bram18 <= share * usable.bram18 &&
         use.uram <= share * usable.uram && use.lut <= share * usable.lut;
}

double seconds_of(const Accelerator& one, const ModelShape& model, const Request& request) {
  if (one.kernels.front().stage == Stage::prefill) {
    return plan_prefill(one, model, request.prompt).seconds;
  }
  // A step in the middle stands for the mean of all.
  const uint32_t middle = request.prompt + request.generate / 2;
  return plan_decode(one, model, request.batch, middle, 1).seconds * request.generate;
}

// Every parallelism of one kernel that fits the device alone and that no other beats in time while
// taking no more DSPs and LUTs.
std::vector<Choice> choices(const Accelerator& base, const Kernel& kernel, const ModelShape& model,
                            const Request& request, double share) {
  Accelerator one = base;
  one.kernels = {kernel};
  Kernel& k = one.kernels.front();
  const Resources usable = base.device.usable();
  std::vector<Choice> all;
  const std::vector<uint32_t> rows = kernel.stage == Stage::prefill
                                         ? std::vector<uint32_t>{4, 8, 16}
                                         : std::vector<uint32_t>{1, 2, 4, 8};
  for (const uint32_t tp : rows) {
    for (uint32_t bp = kernel.weight_ports(); bp <= 16 * kernel.weight_ports() && bp <= 32;
         bp += kernel.weight_ports()) {
      for (const uint32_t wp : {32u, 64u, 128u}) {
        for (const uint32_t heads : {1u, 2u, 4u, 8u}) {
          for (const uint32_t kv : {32u, 64u}) {
            for (const uint32_t outputs : {4u, 8u}) {
              k.tp = tp;
              k.bp = bp;
              k.wp = wp;
              k.heads = heads;
              k.kv = kv;
              k.outputs = outputs;
              const Resources use = estimate(one, k).total();
              if (!within(use, usable, share)) continue;
              all.push_back({k, seconds_of(one, model, request), use});
            }
          }
        }
      }
    }
  }
  std::sort(all.begin(), all.end(),
            [](const Choice& a, const Choice& b) { return a.seconds < b.seconds; });
  std::vector<Choice> best;
  for (const Choice& choice : all) {
    const bool beaten = std::any_of(best.begin(), best.end(), [&](const Choice& other) {
      return other.use.dsp <= choice.use.dsp && other.use.lut <= choice.use.lut &&
             other.use.uram <= choice.use.uram && other.use.bram18 <= choice.use.bram18;
    });
    if (!beaten) best.push_back(choice);
  }
  return best;
}

}  // namespace

std::vector<Candidate> pareto_front(const Accelerator& base, const ModelShape& model,
                                    const Request& request, double share) {
  const Kernel* prefill = base.kernel(Stage::prefill);
  const Kernel* decode = base.kernel(Stage::decode);
  if (prefill == nullptr || decode == nullptr) {
    throw Refused("--explore needs an accelerator with both kernels; '" + base.name +
                  "' has one (kernels)");
  }
  std::vector<Candidate> all;
  const Resources usable = base.device.usable();
  const std::vector<Choice> decodes = choices(base, *decode, model, request, share);
  for (const Choice& first : choices(base, *prefill, model, request, share)) {
    for (const Choice& second : decodes) {
      Resources use = first.use;
      use += second.use;
      if (!within(use, usable, share)) continue;
      Candidate candidate{base, first.seconds, second.seconds, use};
      Accelerator& both = candidate.accelerator;
      both.kernels = {first.kernel, second.kernel};
      const std::vector<KernelResources> estimates = {estimate(both, first.kernel),
                                                      estimate(both, second.kernel)};
      if (!place(both, estimates, share, 0).refusal.empty()) continue;
      all.push_back(std::move(candidate));
      break;  // in ascending time: the rest are slower beside the same prefill
    }
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.prompt_seconds != b.prompt_seconds ? a.prompt_seconds < b.prompt_seconds
                                                : a.decode_seconds < b.decode_seconds;
  });
  std::vector<Candidate> front;
  for (Candidate& candidate : all) {
    if (front.empty() || candidate.decode_seconds < front.back().decode_seconds) {
      front.push_back(std::move(candidate));
    }
  }
  return front;
}

}  // namespace flexllm::kernels::model
