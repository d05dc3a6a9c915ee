// A task's walk over the tokens of a pass: its place among tokens, rows, head steps and parts of a
// head, as counters of one flattened loop.
#pragma once

#include "kernels/modules/attention_plan.h"

namespace flexllm {
namespace kernels {

// Cycles that a token takes at least: what belongs to a row and head is read, changed and written
// back within them, so that loops that change it in memory keep an interval of 1.
constexpr uint32_t kTokenCycles = 4;

// While one token is worked on, the words of the next are taken from a stream into the other of two
// buffers; the walk goes on when both are done, across pages:
//   walk.begin(pages);
//   while (walk.busy()) {
//     HLS_PIPELINE(1)
//     if (walk.loads()) ...  one word
//     if (walk.works()) ...  one step of one row, or a part of it
//     walk.advance(block, pages);
//   }
// A row sees the tokens up to its own position; rows that see a token are the last ones.
//   K     shape
// Cycles: per token max(words, rows that see it * steps * parts, least); for a pass the
// words of its first token besides.
template <typename K>
struct TokenWalk {
  typedef PageCommand<K::attention_rows> Command;

  // Per task and model: words of a token, steps of a row, iterations for a step, and for a token at
  // least.
  uint32_t words;
  uint32_t steps;
  uint32_t parts;
  uint32_t least;

  // The token that is loaded.
  Command page;
  bool loading;
  uint32_t next;  // token of the page
  uint32_t word;

  // The token that is worked on, and the step of it.
  bool working;
  bool finished;
  bool first;  // of this pass
  bool kept;   // as its page's command says
  uint32_t first_row;
  uint32_t row;
  uint32_t step;
  uint32_t part;

  uint32_t buffer;  // that is worked on; the other is loaded
  uint32_t cycle;
  bool started;    // a token has been seen
  uint32_t start;  // position of the first of the pass

  void begin(Stream<Command>& pages) {
    page = pages.read();
    loading = page.kind == kPage;
    next = 0;
    word = 0;
    working = false;
    finished = true;
    first = false;
    kept = false;
    first_row = 0;
    row = 0;
    step = 0;
    part = 0;
    buffer = 0;
    cycle = least;
    started = false;
    start = 0;
  }

  bool busy() const { return loading || working; }
  bool loads() const { return loading && word < words; }
  bool works() const { return working && !finished; }
  bool at_first_row() const { return row == first_row; }
  bool at_last_part() const { return part + 1 == parts; }
  uint32_t loaded_buffer() const { return 1 - buffer; }
  // Index of row and step in memories that have a place for each.
  uint32_t at() const { return row * EngineShape<K>::steps + step; }
  // Whether a row of the block has seen a token of the pass.
  bool seen_by(const Command& block, uint32_t of_row) const {
    return started && block.position[of_row] >= start;
  }

  void advance(const Command& block, Stream<Command>& pages) {
    if (works() && ++part == parts) {
      part = 0;
      if (++step == steps) {
        step = 0;
        finished = ++row == block.rows;
      }
    }
    if (loads()) ++word;
    ++cycle;
    if (loads() || works() || cycle < least) return;
    const uint32_t token = page.first + next;
    working = loading;
    finished = false;
    first = !started;
    kept = page.flag;
    first_row = 0;
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < K::attention_rows; ++i) {
      HLS_UNROLL
      if (i < block.rows && block.position[i] < token) ++first_row;
    }
    row = first_row;
    step = 0;
    part = 0;
    if (loading && !started) {
      started = true;
      start = token;
    }
    buffer = 1 - buffer;
    word = 0;
    cycle = 0;
    if (loading && ++next == page.tokens) {
      page = pages.read();
      loading = page.kind == kPage;
      next = 0;
    }
  }
};

}  // namespace kernels
}  // namespace flexllm
