#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/model/chain.h"
#include "kernels/model/latencies.h"
#include "kernels/model/stages.h"

namespace flexllm::kernels::model {
namespace {

// Tokens on port `port` among the first `tokens` of a sequence whose pages go round the ports from
// port `first` on.
double tokens_of_port(uint32_t tokens, uint32_t port, uint32_t first, uint32_t ports) {
  const uint32_t pages = divide_up(tokens, kPageTokens);
  const uint32_t turn = (port + ports - first % ports) % ports;
  if (turn >= pages) return 0;
  const uint32_t mine = (pages - turn - 1) / ports + 1;
  const bool has_last = (pages - 1) % ports == turn;
  const uint32_t missing = has_last ? pages * kPageTokens - tokens : 0;
  return mine * kPageTokens - missing;
}

// The chain of one KV port: when its modules are free. A port reads the keys of the next block
// before the values of this one.
struct Chain {
  double load = kMemoryLatency;
  double scored = 0;
  double softened = 0;
};

// What a block of rows asks of one port.
struct Share {
  double pairs = 0;  // tokens that its rows see
  double key_words = 0;
  double value_words = 0;
  double value_cycles = 0;
  double scored_again = 0;  // tokens whose scores were not kept
};

struct Block {
  uint32_t rows;
  double maxima_known;
  std::vector<Share> shares;
};

}  // namespace

RegionTime attention_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                            const std::vector<SequenceRows>& sequences) {
  const KvLayout layout = model.kv();
  const uint32_t ports = kernel.kv_ports();
  const uint32_t rows_per_block = rows_of_block(kernel);
  const double head_steps = divide_up(model.heads, kernel.heads);
  const double steps = head_steps * divide_up(model.head_dim, kernel.kv);
  const double soften_steps = head_steps * std::max(1.0, 64.0 / kernel.kv);
  const double row_words = float_words(model.attention());
  const double kept = score_tokens(kernel);
  const double token = layout.token_words();
  const double scaled = token + layout.scale_words();

  RegionTime out;
  out.region = "attention";
  Streaming read(kMemoryLatency);
  Buffering quantize(kQuantizeLatency);
  std::vector<Chain> chains(ports);
  double gathered = 0;
  double busy_scores = 0;  // of all ports together
  double busy_values = 0;
  double busy_load = 0;
  double busy_softmax = 0;
  double busy_gather = 0;
  double scores_begin = -1;
  double values_begin = -1;

  const auto take_values = [&](const Block& block) {
    double sums_ready = 0;
    for (uint32_t port = 0; port < ports; ++port) {
      Chain& chain = chains[port];
      const Share& share = block.shares[port];
      const double begin = std::max(block.maxima_known, chain.softened);
      if (values_begin < 0) values_begin = begin;
      chain.load = std::max(chain.load, begin - kPageWords) + share.value_words / rates.kv;
      const double cycles = std::max(share.value_cycles, share.pairs * soften_steps);
      const double ends = std::max(begin + kSoftenLatency + cycles, chain.load);
      sums_ready = std::max(sums_ready, ends);
      chain.softened = ends + block.rows * row_words;  // sums leave before the next block enters
      // What is scored again is scored beside its values; the next block's keys come behind that.
      if (share.scored_again > 0) chain.scored = ends;
      busy_values += share.pairs * steps;
      busy_softmax += share.pairs * soften_steps;
      busy_load += share.value_words / rates.kv;
    }
    gathered = std::max(gathered, sums_ready + kGatherLatency) + block.rows * row_words;
    busy_gather += block.rows * row_words;
  };

  std::vector<Block> waiting;
  for (uint32_t sequence = 0; sequence < sequences.size(); ++sequence) {
    const SequenceRows& range = sequences[sequence];
    for (uint32_t row = 0; row < range.rows; row += rows_per_block) {
      Block block{std::min(rows_per_block, range.rows - row), 0, std::vector<Share>(ports)};
      // Values of the block before come first if some of its scores were not kept.
      if (!waiting.empty() &&
          std::any_of(waiting.front().shares.begin(), waiting.front().shares.end(),
                      [](const Share& share) { return share.scored_again > 0; })) {
        take_values(waiting.front());
        waiting.clear();
      }
      double queries = 0;
      for (uint32_t i = 0; i < block.rows; ++i) {
        const Span span = read.pass({read.free_at(), read.free_at()}, row_words / rates.scratch);
        queries = quantize.pass(span, row_words, row_words).last;
        for (uint32_t port = 0; port < ports; ++port) {
          block.shares[port].pairs +=
              tokens_of_port(range.begin + row + i + 1, port, sequence, ports);
        }
      }
      for (uint32_t port = 0; port < ports; ++port) {
        Chain& chain = chains[port];
        Share& share = block.shares[port];
        const double here = tokens_of_port(range.begin + row + block.rows, port, sequence, ports);
        const double again = std::max(0.0, here - kept);
        share.key_words = here * scaled;
        share.value_words = here * token + again * scaled;
        share.value_cycles = std::max(share.pairs * steps, here * token);
        share.scored_again = again;
        const double begin = std::max(queries, chain.scored);
        if (scores_begin < 0) scores_begin = begin;
        chain.load = std::max(chain.load, begin - kPageWords) + share.key_words / rates.kv;
        chain.scored = std::max(begin + std::max(share.pairs * steps, here * token), chain.load);
        block.maxima_known = std::max(block.maxima_known, chain.scored + kCombineLatency);
        busy_load += share.key_words / rates.kv;
        busy_scores += share.pairs * steps;
        out.traffic.kv += share.key_words + share.value_words;
      }
      out.traffic.scratch += 2.0 * block.rows * row_words;
      waiting.push_back(std::move(block));
      if (waiting.size() == 2) {
        take_values(waiting.front());
        waiting.erase(waiting.begin());
      }
    }
  }
  for (const Block& block : waiting) take_values(block);
  double loaded = 0;
  double scored = 0;
  double softened = 0;
  for (const Chain& chain : chains) {
    loaded = std::max(loaded, chain.load);
    scored = std::max(scored, chain.scored);
    softened = std::max(softened, chain.softened);
  }
  out.modules.push_back({"load pages", 0, loaded, busy_load / ports});
  out.modules.push_back({"scores", scores_begin, scored, busy_scores / ports});
  out.modules.push_back({"softmax", values_begin, softened, busy_softmax / ports});
  out.modules.push_back({"values", values_begin, softened, busy_values / ports});
  out.modules.push_back({"gather", values_begin, gathered, busy_gather});
  out.cycles = gathered + kStoreLatency + kRegionTurn;
  return out;
}

RegionTime joined_region(const RegionTime& attention, const RegionTime& output) {
  // The arrays begin when the last output row has come, one quantiser later.
  const double begin = attention.cycles - output.filled + kQuantizeLatency;
  RegionTime out;
  out.region = "attention, o";
  out.cycles = begin + output.cycles;
  out.modules = attention.modules;
  for (ModuleTime module : output.modules) {
    if (module.module == "read rows" || module.module == "quantize") continue;
    module.begin = std::max(0.0, module.begin + begin);
    module.end += begin;
    out.modules.push_back(module);
  }
  out.traffic = attention.traffic;
  out.traffic += output.traffic;
  return out;
}

}  // namespace flexllm::kernels::model
