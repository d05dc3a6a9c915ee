#include "kernels/model/plan.h"

#include <algorithm>

namespace flexllm::kernels::model {
namespace {

// Adds up the regions of launches.
class Totals {
 public:
  void add(const RegionTime& region, double calls) {
    const auto found = std::find_if(totals_.begin(), totals_.end(), [&](const RegionTotal& total) {
      return total.region == region.region;
    });
    RegionTotal& total = found != totals_.end() ? *found : totals_.emplace_back();
    total.region = region.region;
    const double share = calls / (total.calls + calls);
    total.calls += calls;
    total.cycles += calls * region.cycles;
    total.traffic += region.traffic * calls;
    if (total.modules.empty()) total.modules.assign(region.modules.size(), {"", 0, 0, 0});
    for (size_t i = 0; i < region.modules.size(); ++i) {
      const ModuleTime& added = region.modules[i];
      ModuleTime& module = total.modules.at(i);
      module.module = added.module;
      module.begin += share * (added.begin - module.begin);
      module.end += share * (added.end - module.end);
      module.busy += calls * added.busy;
    }
  }
  std::vector<RegionTotal>& all() { return totals_; }

 private:
  std::vector<RegionTotal> totals_;
};

void spread(std::vector<double>& bank_bytes, const std::vector<uint32_t>& banks, double words) {
  for (const uint32_t bank : banks) {
    bank_bytes.at(bank) += words * kWordBytes / static_cast<double>(banks.size());
  }
}

// Products of 4 bits and of 8 bits at the arrays' full width.
double least_array_cycles(const Kernel& kernel, const ModelShape& m, double rows, double logits,
                          double pairs) {
  const auto products = [](double inputs, double outputs, const Precision& p) {
    return inputs * outputs * p.weight_planes * p.activation_planes;
  };
  double layers = 0;
  for (const Matrix matrix : kLayerMatrices) {
    for (const auto& [precision, count] : m.shares(matrix)) {
      layers += count * products(m.inputs(matrix), m.outputs(matrix), precision);
    }
  }
  const double linear = rows * layers + logits * products(m.hidden, m.vocab, m.lm_head);
  const double array = 1.0 * kernel.tp * kernel.bp * kernel.wp;
  const double engines = 1.0 * kernel.heads * kernel.kv * kernel.kv_ports();
  // Scores and values have an array each.
  return linear / array + m.layers * pairs * m.attention() / engines;
}

// Turns totals of `launches` launches into the figures of one.
StagePlan finish(const Accelerator& accelerator, const Kernel& kernel, Totals totals,
                 double launches, double tokens, double least_cycles) {
  StagePlan plan;
  plan.clock_mhz = kernel.clock_mhz;
  plan.tokens = tokens;
  plan.bank_bytes.assign(accelerator.device.banks.size(), 0.0);
  double worst = 0;
  for (RegionTotal& region : totals.all()) {
    region.calls /= launches;
    region.cycles /= launches;
    region.traffic = region.traffic * (1.0 / launches);
    for (ModuleTime& module : region.modules) module.busy /= launches;
    plan.cycles += region.cycles;
    spread(plan.bank_bytes, kernel.weight_banks, region.traffic.weights);
    spread(plan.bank_bytes, kernel.kv_banks, region.traffic.kv);
    spread(plan.bank_bytes, kernel.port("scratch").banks, region.traffic.scratch);
    spread(plan.bank_bytes, kernel.port("io").banks, region.traffic.io);
    if (region.cycles > worst) {
      worst = region.cycles;
      const auto busiest = std::max_element(
          region.modules.begin(), region.modules.end(),
          [](const ModuleTime& a, const ModuleTime& b) { return a.busy < b.busy; });
      plan.bottleneck = region.region + ": " + busiest->module;
    }
  }
  plan.regions = std::move(totals.all());
  plan.seconds = plan.cycles / (kernel.clock_mhz * 1e6);
  plan.tokens_per_s = tokens / plan.seconds;
  plan.roofline_seconds = least_cycles / launches / (kernel.clock_mhz * 1e6);
  for (size_t bank = 0; bank < plan.bank_bytes.size(); ++bank) {
    plan.roofline_seconds =
        std::max(plan.roofline_seconds,
                 plan.bank_bytes[bank] / (accelerator.device.banks[bank].gb_per_s * 1e9));
  }
  return plan;
}

void add_launch(Totals& totals, const Kernel& kernel, const Rates& rates, const ModelShape& model,
                const std::vector<SequenceRows>& sequences, uint32_t logits_rows, double times) {
  uint32_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.rows;
  const RegionTime attention = attention_region(kernel, rates, model, sequences);
  totals.add(input_region(rates, model, rows), times);
  for (const Matrix matrix : kLayerMatrices) {
    const bool joined = kernel.spatial && matrix == Matrix::output;
    if (matrix == Matrix::output && !joined) totals.add(attention, times * model.layers);
    for (const auto& [precision, layers] : model.shares(matrix)) {
      const RegionTime region = linear_region(kernel, rates, model, matrix, precision, rows);
      totals.add(joined ? joined_region(attention, region) : region, times * layers);
    }
  }
  totals.add(hidden_region(rates, model, 0), times);
  if (logits_rows == 0) return;
  totals.add(linear_region(kernel, rates, model, Matrix::lm_head, model.lm_head, logits_rows),
             times);
  totals.add(result_region(kernel, rates, model, logits_rows), times);
}

const Kernel& need(const Accelerator& accelerator, Stage stage) {
  const Kernel* kernel = accelerator.kernel(stage);
  if (kernel == nullptr) {
    throw Refused("accelerator '" + accelerator.name + "' has no " +
                  (stage == Stage::prefill ? "prefill" : "decode") + " kernel");
  }
  return *kernel;
}

void within(const char* field, uint32_t value, uint32_t most, const std::string& accelerator) {
  if (value <= most) return;
  throw Refused(std::string(field) + " is " + std::to_string(value) + "; accelerator '" +
                accelerator + "' is built for at most " + std::to_string(most) + " (maxima." +
                field + ")");
}

}  // namespace

void check_maxima(const Accelerator& accelerator, const ModelShape& model, const Request& request) {
  const Maxima& maxima = accelerator.maxima;
  const std::string& name = accelerator.name;
  within("d", model.hidden, maxima.hidden, name);
  within("ffn", model.ffn, maxima.ffn, name);
  within("heads", model.heads, maxima.heads, name);
  within("kv_heads", model.kv_heads, maxima.kv_heads, name);
  within("head_dim", model.head_dim, maxima.head_dim, name);
  within("vocabulary", model.vocab, maxima.vocab, name);
  within("context", request.prompt + request.generate, maxima.context, name);
  within("batch", request.batch, maxima.batch, name);
}

MemoryUse memory_use(const Accelerator& accelerator, const ModelShape& model,
                     const Request& request) {
  const Kernel& kernel = accelerator.kernels.at(0);
  const auto arenas = static_cast<uint32_t>(kernel.weight_banks.size());
  const auto words = [&](Matrix matrix, const Precision& precision) {
    return uint64_t{matrix_words(model.tiles(matrix) * kTileRows,
                                 TileLayout{model.inputs(matrix), precision}, arenas)};
  };
  uint64_t all = words(Matrix::lm_head, model.lm_head);
  for (const Matrix matrix : kLayerMatrices) {
    for (const auto& [precision, layers] : model.shares(matrix)) {
      all += layers * words(matrix, precision);
    }
  }
  MemoryUse use;
  use.weight_bytes_per_arena = all * kWordBytes;
  const auto fit = [&](uint32_t bank, uint64_t bytes, const std::string& what) {
    const Bank& target = accelerator.device.banks.at(bank);
    if (bytes <= target.bytes) return;
    throw Refused(what + " of '" + model.name + "' take " + std::to_string(bytes >> 20) +
                  " MiB of bank " + target.tag + ", which holds " +
                  std::to_string(target.bytes >> 20) + " MiB (accelerator '" + accelerator.name +
                  "', banks.w)");
  };
  for (const uint32_t bank : kernel.weight_banks) fit(bank, use.weight_bytes_per_arena, "weights");
  const uint64_t page = static_cast<uint64_t>(model.kv().page_words()) * kWordBytes;
  uint64_t pages = 0;
  for (const uint32_t bank : kernel.kv_banks)
    pages += accelerator.device.banks.at(bank).bytes / page;
  use.kv_bytes_per_token = page / kPageTokens;
  use.kv_tokens = pages * kPageTokens;
  const uint64_t wanted = uint64_t{request.batch} *
                          divide_up(request.prompt + request.generate, kPageTokens) * kPageTokens;
  if (wanted > use.kv_tokens) {
    throw Refused("batch " + std::to_string(request.batch) + " of " +
                  std::to_string(request.prompt + request.generate) +
                  " tokens needs a KV cache of " + std::to_string(wanted) +
                  " tokens; the arenas of '" + accelerator.name + "' (banks.kv) hold " +
                  std::to_string(use.kv_tokens) + " of '" + model.name + "'");
  }
  return use;
}

StagePlan plan_prefill(const Accelerator& accelerator, const ModelShape& model, uint32_t tokens) {
  const Kernel& kernel = need(accelerator, Stage::prefill);
  const Rates rates = rates_of(accelerator.device, kernel);
  Totals totals;
  double pairs = 0;
  for (uint32_t begin = 0; begin < tokens; begin += accelerator.maxima.prefill_rows) {
    const uint32_t rows = std::min(accelerator.maxima.prefill_rows, tokens - begin);
    const bool last = begin + rows == tokens;
    add_launch(totals, kernel, rates, model, {{begin, rows}}, last ? 1 : 0, 1.0);
    pairs += 0.5 * rows * (2.0 * begin + rows + 1);
  }
  return finish(accelerator, kernel, std::move(totals), 1.0, tokens,
                least_array_cycles(kernel, model, tokens, 1, pairs));
}

StagePlan plan_decode(const Accelerator& accelerator, const ModelShape& model, uint32_t batch,
                      uint32_t first_position, uint32_t steps) {
  const Kernel& kernel = need(accelerator, Stage::decode);
  const Rates rates = rates_of(accelerator.device, kernel);
  Totals totals;
  double pairs = 0;
  // Cycles are linear in the position within a page: one step in the middle of each stands for it.
  for (uint32_t begin = 0; begin < steps; begin += kPageTokens) {
    const uint32_t count = std::min(kPageTokens, steps - begin);
    const uint32_t position = first_position + begin + count / 2;
    const std::vector<SequenceRows> sequences(batch, SequenceRows{position, 1});
    add_launch(totals, kernel, rates, model, sequences, batch, count);
    pairs += 1.0 * count * batch * (position + 1);
  }
  return finish(accelerator, kernel, std::move(totals), steps, batch,
                least_array_cycles(kernel, model, 1.0 * steps * batch, 1.0 * steps * batch, pairs));
}

double launch_seconds(const Accelerator& accelerator, const ModelShape& model, Stage stage,
                      const std::vector<SequenceRows>& sequences, uint32_t logits_rows) {
  const Kernel& kernel = need(accelerator, stage);
  Totals totals;
  add_launch(totals, kernel, rates_of(accelerator.device, kernel), model, sequences, logits_rows,
             1.0);
  double cycles = 0;
  for (const RegionTotal& region : totals.all()) cycles += region.cycles;
  return cycles / (kernel.clock_mhz * 1e6);
}

}  // namespace flexllm::kernels::model
