// A block of rows on one port, as the tasks of an attention engine see it: commands, lanes, and the
// order of tokens, rows and steps. C++14.
#pragma once

#include "kernels/testbench/attention.h"
#include "kernels/testbench/shapes.h"

namespace flexllm {
namespace kernels {

typedef EngineShape<OnePort> BenchEngine;
typedef PageCommand<OnePort::attention_rows> BenchCommand;
static_assert(BenchEngine::pairs == 1 && BenchEngine::share == 2,
              "a step is two heads of a KV head");

// Pages of the port, not all of them whole, nor one behind the other.
struct BenchPage {
  uint32_t first;
  uint32_t tokens;
  bool kept;
};

struct EngineBlock {
  ModelInfo info;
  std::vector<uint32_t> positions;  // of the rows, ascending
  std::vector<BenchPage> pages;
  std::vector<Token> tokens;  // of the pages, in turn

  uint32_t rows() const { return static_cast<uint32_t>(positions.size()); }
  uint32_t group() const { return info.heads / info.kv_heads; }
  uint32_t group_steps() const { return divide_up(group(), 2); }
  uint32_t steps() const { return info.kv_heads * group_steps(); }
  uint32_t kv_head(uint32_t step) const { return step / group_steps(); }
  // Query head of a lane; with an odd group the last lane of a KV head has none.
  bool used(uint32_t step, uint32_t lane) const {
    return 2 * (step % group_steps()) + lane < group();
  }
  uint32_t head(uint32_t step, uint32_t lane) const {
    return kv_head(step) * group() + 2 * (step % group_steps()) + lane;
  }
  uint32_t place(uint32_t row, uint32_t step, uint32_t lane) const {
    return (row * steps() + step) * BenchEngine::lanes + lane;
  }
  uint32_t places() const { return rows() * steps() * BenchEngine::lanes; }

  // Calls visit(token, row, step, whether it is the first row, page) as the tasks take them.
  template <typename Visit>
  void walk(const Visit& visit) const {
    uint32_t token = 0;
    for (const BenchPage& page : pages) {
      for (uint32_t position = page.first; position < page.first + page.tokens; ++position) {
        bool first = true;
        for (uint32_t row = 0; row < rows(); ++row) {
          if (positions[row] < position) continue;
          for (uint32_t step = 0; step < steps(); ++step) visit(token, row, step, first, page);
          first = false;
        }
        ++token;
      }
    }
  }

  BenchCommand begin() const {
    BenchCommand command = {kBeginBlock, false, rows(), 0, 0, {}};
    for (uint32_t row = 0; row < rows(); ++row) command.position[row] = positions[row];
    return command;
  }
  void send_pages(bool all, Stream<BenchCommand>& commands) const {
    for (const BenchPage& page : pages) {
      if (all || !page.kept) {
        commands.write(BenchCommand{kPage, page.kept, 0, page.first, page.tokens, {}});
      }
    }
  }
  static BenchCommand end(CommandKind kind, bool flag) {
    return BenchCommand{kind, flag, 0, 0, 0, {}};
  }
};

// Two rows, of which the first may see none of the tokens; the last page ends with the position of
// the last row. The first `kept` pages have their scores kept.
inline EngineBlock random_block(std::mt19937& random, uint32_t pages, uint32_t kept) {
  EngineBlock block;
  const uint32_t kv_heads = 1 + below(random, OnePort::kv_heads);
  const uint32_t heads = kv_heads * (1 + below(random, OnePort::heads / kv_heads));
  const uint32_t head_dim = 8 * (1 + below(random, OnePort::head_dim / 8));
  block.info = model_info(heads, kv_heads, head_dim, 255);
  for (uint32_t page = 0; page < pages; ++page) {
    const bool last = page + 1 == pages;
    const uint32_t tokens = last ? 1 + below(random, kPageTokens) : kPageTokens;
    block.pages.push_back(BenchPage{(2 * page + 1) * kPageTokens, tokens, page < kept});
    for (uint32_t t = 0; t < tokens; ++t) block.tokens.push_back(random_record(random, block.info));
  }
  const uint32_t end = block.pages.back().first + block.pages.back().tokens - 1;
  block.positions = {end - below(random, end + 1), end};
  return block;
}

// Bytes of the heads of a token as their words.
inline void send_heads(const EngineBlock& block, const Token& token, bool values,
                       Stream<Word>& out) {
  for (const KvRecord& head : token) {
    const std::vector<int32_t>& x = values ? head.v : head.k;
    for (uint32_t begin = 0; begin < block.info.head_dim; begin += kBytesPerWord) {
      Word word = zero_word();
      for (uint32_t i = 0; i < kBytesPerWord && begin + i < x.size(); ++i) {
        set_byte(word, i, static_cast<uint32_t>(x[begin + i]));
      }
      out.write(word);
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
