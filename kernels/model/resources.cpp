#include "kernels/model/resources.h"

#include <algorithm>
#include <cmath>

#include "kernels/contract/launch.h"
#include "kernels/model/latencies.h"

namespace flexllm::kernels::model {
namespace {

// One operator. Multiplications in DSPs, additions in logic: the other way round they would not
// fit beside the arrays.
constexpr Resources kMultiply{2, 0, 0, 120};
constexpr Resources kAdd{0, 0, 0, 360};
constexpr Resources kCompare{0, 0, 0, 70};
constexpr Resources kDivide{0, 0, 0, 800};
constexpr Resources kSquareRoot{0, 0, 0, 500};
constexpr Resources kFromInteger{0, 0, 0, 230};
constexpr Resources kMaster{0, 0, 0, 2000};  // adapter of an AXI master of 512 bits
constexpr double kLutsPerStreamBit = 0.6;    // shallow FIFOs in LUT memory

Resources sum(double multiplies, double adds, double compares = 0, double divides = 0,
              double conversions = 0) {
  Resources r = kMultiply * multiplies;
  r += kAdd * adds;
  r += kCompare * compares;
  r += kDivide * divides;
  r += kFromInteger * conversions;
  return r;
}

// exp: 9 products, 11 sums (4 of them round), 2 compares.
Resources exponential() { return sum(9, 11, 2); }

// Memories of `words` words of `bits` bits, one word a cycle each way.
Resources block_ram(double words, double bits) {
  // 18 Kbit: 512 words of 36 bits, or deeper and narrower.
  return {0, std::ceil(words / 512.0) * std::ceil(bits / 36.0), 0, 0};
}
Resources ultra_ram(double words, double bits) {
  return {0, 0, std::ceil(words / 4096.0) * std::ceil(bits / 72.0), 0};
}

constexpr double kWordBits = 512;

}  // namespace

Resources KernelResources::total() const {
  Resources all;
  for (const ModuleResources& module : modules) all += module.use();
  return all;
}

Resources total(const std::vector<KernelResources>& kernels) {
  Resources all;
  for (const KernelResources& kernel : kernels) all += kernel.total();
  return all;
}

KernelResources estimate(const Accelerator& accelerator, const Kernel& kernel) {
  const Maxima& m = accelerator.maxima;
  const bool prefill = kernel.stage == Stage::prefill;
  const double rows = prefill ? m.prefill_rows : m.batch;
  const double inputs = std::max(std::max(m.hidden, m.heads * m.head_dim), m.ffn);
  const double row_words = inputs / kFloatsPerWord;
  KernelResources out;
  out.kernel = kernel.name;
  const auto add_to = [&](const char* unit, const char* module, uint32_t copies, Resources each,
                          const char* port = "") {
    out.modules.push_back({module, unit, copies, each, port});
  };
  const auto add = [&](const char* module, Resources each, uint32_t copies = 1) {
    add_to(module, module, copies, each);
  };

  // A plane word of 32 rows x 4 inputs by tp rows; four products of 4 bits a DSP.
  const double products = 1.0 * kernel.tp * kernel.wp;
  const double sums = products / (std::max(1.0, kernel.wp / 32.0));  // accumulators a cycle
  Resources array{products / (kernel.tp >= 2 ? 4 : 2), 0, 0, sums * 40 + 1500};
  // Spatial: q k v and o have arrays, and what stands around them, of their own.
  const uint32_t linears = kernel.spatial ? 3 : 1;
  const uint32_t arrays = kernel.bp * linears;
  // Theirs hold rows of the attention half only.
  const double shares = 1 + (linears - 1) * std::max(m.hidden, m.heads * m.head_dim) / inputs;
  add_to("array", "multiply", arrays, array);
  const double fold_lanes = 2.0 * kernel.tp;
  Resources fold{fold_lanes, 0, 0, fold_lanes * 60 + 800};
  fold += block_ram(16 * kTileRows / fold_lanes, 48 * fold_lanes);
  add_to("array", "fold groups", arrays, fold);
  const double tile_words = 2 * inputs / kInputsPerWord;
  Resources load = kMaster;
  load += block_ram(512, kWordBits);
  add_to("weight port", "load tiles", kernel.weight_ports(), load, "w");
  if (prefill) {
    add_to("array", "replay tiles", arrays,
           ultra_ram(tile_words, kWordBits) * (2 * shares / linears));
  }
  const double panels = kernel.panel < rows ? 2 : 1;
  const double blocks = panels * divide_up(kernel.panel, 16);
  const double bank_words = blocks * inputs / 16;
  // 4 banks x 16 rows of 32 bits: two rows side by side in a URAM, or block RAM when shallow.
  add("activations", bank_words >= 4096 ? ultra_ram(bank_words, 64) * (32 * shares)
                                        : block_ram(bank_words, 32) * (64 * shares));

  // Each linear region holds every module around its arrays: its matrix is chosen at run time.
  const uint32_t regions = kernel.spatial ? 2 : 1;
  const double lanes = kFloatsPerWord;
  // Two cycles a word: half the lanes.
  Resources norm = sum(3 * lanes / kSumInterval, lanes / kSumInterval, 0, 1);
  norm += kSquareRoot;
  norm += block_ram(row_words, kWordBits) * 2;
  add("norm", norm, regions);
  Resources hadamard = sum(lanes, 9 * lanes);
  hadamard += {0, 0, 0, 9 * kWordBits};
  add("hadamard", hadamard, regions);
  Resources quantize = sum(lanes, 2 * lanes, 4 * lanes, 2);
  quantize += block_ram(row_words, kWordBits);
  add("quantize", quantize, linears);
  Resources dequantize = sum(3, 2, 0, 0, 1) * kernel.outputs;
  dequantize += block_ram(rows, 96);
  add("dequantize", dequantize, linears);

  const double silus = std::max(1.0, kernel.outputs / 4.0);
  Resources silu = exponential();
  silu += sum(2, 1, 1, 1);
  Resources gate = silu * silus;
  gate += block_ram(rows, 2 * kWordBits);
  add("gate with silu", gate, regions);
  Resources residual = sum(0, lanes);
  // Residual words of a panel, until its results come.
  residual += ultra_ram((panels - 1) * kernel.panel * m.hidden / lanes + 32, kWordBits);
  add("residual", residual, linears);
  Resources heads = sum(16, 8);  // RoPE of 8 floats a cycle
  heads += block_ram(rows * m.head_dim / 8, 256) * 2;
  heads += sum(4 + 8, 8, 16, 2);  // INT8 of k and v, head norms
  add("heads", heads, regions);

  const double pairs = 1.0 * kernel.heads * kernel.kv;
  // Two heads share a key in a DSP; a numerator of 16 bits times a value takes one of its own.
  const double packed = kernel.heads % 2 == 0 ? 0.5 : 1.0;
  Resources engine{pairs * packed + pairs, 0, 0, pairs * 2 * 20 + 3000};  // scores and values
  Resources softmax = exponential();
  softmax += sum(6, 3, 4, 0, 1);  // a - m, and the rounding of d and n
  // A head of 64 elements takes 64 / kv cycles, and so do its lanes of the softmax.
  engine += softmax * (kernel.heads * std::max(kernel.kv, 1u) / 64.0);
  const double block_rows = rows_of_block(kernel);
  const double scores = 2 * score_tokens(kernel) * block_rows * m.heads / kernel.heads;  // entries
  engine += ultra_ram(scores, 32.0 * kernel.heads);
  engine += ultra_ram(scores / block_rows, 32.0 * std::max(1.0, kernel.heads / 2.0));  // V scales
  engine += block_ram(512, kWordBits) * 2;  // keys and values, a page deep
  const double accumulators = block_rows * m.heads * m.head_dim / 16;
  engine += block_ram(accumulators, 48 * 16);
  engine += kMaster;
  add_to("KV engine", "attention", kernel.kv_ports(), engine, "kv");
  Resources gather = sum(lanes, 0, 0, 1, lanes);
  gather += sum(lanes / 2, lanes, 2 * lanes, 2);  // queries to INT8
  gather += block_ram(m.heads * m.head_dim / lanes, kWordBits) * 2;
  add("queries and outputs", gather);

  const double summed = logits_lanes(kernel);
  Resources logits = exponential() * summed;
  logits += sum(0, summed, lanes + kTopLogits);
  logits += {0, 0, 0, kTopLogits * 130.0};
  logits += sum(1, 2, 0, 2);
  logits += ultra_ram(m.vocab / lanes, kWordBits);  // a row, until its maximum is known
  add("row results", logits);
  add("final norm", sum(3 * lanes / 4, lanes / 4, 0, 1));
  add("control", {0, 0, 0, 12000});
  Resources port = kMaster;
  port += block_ram(512, kWordBits) * 2;
  add_to("io port", "io", 1, port, "io");
  add_to("scratch port", "scratch", 1, port, "scratch");
  // Streams between the modules: activation words to an array, weight words, sums; queries and
  // sums of an engine.
  const auto streams = [&](const char* unit, uint32_t copies, double bits) {
    add_to(unit, "streams", copies, {0, 0, 0, bits * kLutsPerStreamBit});
  };
  streams("array", arrays, 2 * kWordBits + 32.0 * 48);
  streams("KV engine", kernel.kv_ports(), 2 * kWordBits);
  streams("control", 1, 12 * kWordBits);
  return out;
}

}  // namespace flexllm::kernels::model
