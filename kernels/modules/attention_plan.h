// The order in which an attention engine works: blocks of rows, their pages, and the tasks' walk
// over tokens, rows and heads.
//
// A block is a run of rows of one sequence; its tokens are read once for all of them. First pass:
// the scores of the keys, which are kept until the block's maxima are known. Second pass: the
// values. While the values of a block are summed the keys of the next are scored, so their pages
// are read in turns.
//
// A port keeps the scores of `score_tokens` tokens of a block. Of pages beyond that only the maxima
// enter in the first pass; in the second their keys are read and scored again, each just ahead of
// its values. The next block's keys then come behind all of that.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/memory.h"
#include "kernels/modules/derived_sizes.h"
#include "kernels/modules/lanes.h"
#include "kernels/modules/pages.h"
#include "kernels/modules/rows.h"

namespace flexllm {
namespace kernels {

// Tokens of a block whose scores a port keeps: K::score_tokens, or what derived_sizes.h says.
template <typename K, typename = void>
struct ScoreTokens {
  static constexpr uint32_t value = kept_score_tokens(K::kv_ports, K::attention_rows);
};
template <typename K>
struct ScoreTokens<K, decltype(static_cast<void>(K::score_tokens))> {
  static constexpr uint32_t value = K::score_tokens;
};

// Room for kept scores: of one block in steps of one row, and depths for two blocks.
//   K     shape
template <typename K>
struct ScoreMemory {
  static constexpr uint32_t token_steps =
      ScoreTokens<K>::value * divide_up(K::heads, K::head_parallel);
  static constexpr uint32_t scale_depth = 2 * token_steps;
  static constexpr uint32_t score_depth = 2 * token_steps * K::attention_rows;
};

enum CommandKind : uint32_t { kBeginBlock, kPage, kEndOfPass, kEndOfBlocks };

// What a task of an engine has to do next.
template <uint32_t MaxRows>
struct PageCommand {
  CommandKind kind;
  bool flag;        // kPage: scores are kept; kEndOfPass: another pass over the block follows
  uint32_t rows;    // kBeginBlock
  uint32_t first;   // kPage: position of its first token
  uint32_t tokens;  // kPage
  uint32_t position[MaxRows];  // kBeginBlock: of each row, ascending
};

// How far the planner is with the pages of a block; no rows: no block.
//   K     shape
template <typename K>
struct PlannedBlock {
  PageCommand<K::attention_rows> begin;
  uint32_t table;  // word of the descriptor: its page table
  uint32_t tokens;
  uint32_t pages;
  bool whole;                  // the scores of all its pages are kept
  uint32_t kept[K::kv_ports];  // of each port: steps of a row
  bool full[K::kv_ports];

  void start_pass() {
    whole = true;
    HLS_UNROLL_AHEAD
    for (uint32_t port = 0; port < K::kv_ports; ++port) {
      HLS_UNROLL
      kept[port] = 0;
      full[port] = false;
    }
  }

  // Whether the scores of the next page, on `port`, are kept. The same in each pass.
  bool keeps(uint32_t port, uint32_t token_steps) {
    full[port] = full[port] || kept[port] + token_steps > ScoreMemory<K>::token_steps;
    if (full[port]) {
      whole = false;
    } else {
      kept[port] += token_steps;
    }
    return !full[port];
  }
};

// A page of a block: where it is, and what to do.
//   K     shape
template <typename K>
struct PlannedPage {
  uint32_t port;
  PageRequest keys;
  PageCommand<K::attention_rows> command;
};

template <typename K>
inline PlannedPage<K> plan_page(PlannedBlock<K>& block, uint32_t id, uint32_t page, uint32_t layer,
                                uint32_t steps, const KvLayout& layout) {
  const uint32_t stream = id % K::kv_streams;
  const uint32_t port = stream % K::kv_ports;
  const uint32_t word = id / K::kv_streams * layout.page_words() + layer * layout.layer_words();
  const uint32_t left = block.tokens - page * kPageTokens;
  const uint32_t tokens = left < kPageTokens ? left : kPageTokens;
  const bool kept = block.keeps(port, tokens * steps);
  return PlannedPage<K>{port,
                        {false, false, stream / K::kv_ports, word, tokens},
                        {kPage, kept, 0, page * kPageTokens, tokens, {}}};
}

// Cuts the launch into blocks and tells each port's tasks which pages to read, to score and to sum,
// in turns: the pages of a block's first pass with those of the second pass of the block before, if
// that one's scores are all kept. Pages behind the last row of a block are never read: causality
// costs nothing. Every task may rely on this: a command can be carried out once all commands before
// it are, and the first command to the same task behind it is there.
//   K     shape
// Cycles: per launch its rows; per page of a turn 2, and the latency of the memory.
template <typename K, typename Requests, typename Commands, typename Rows>
void plan_attention(const Word* desc, const LaunchInfo launch, const ModelInfo info, uint32_t layer,
                    Requests (&requests)[K::kv_ports], Commands (&scored)[K::kv_ports],
                    Commands (&softened)[K::kv_ports], Commands (&summed)[K::kv_ports],
                    Rows& combined, Rows& gathered) {
  typedef PageCommand<K::attention_rows> Command;
  const KvLayout layout = info.kv();
  const uint32_t steps = steps_of<K>(info);
  uint32_t sequence[K::rows];
  uint32_t position[K::rows];
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo next = unpack_row(read_word(desc, launch.row_table + row), row);
    sequence[row] = next.sequence;
    position[row] = next.position;
  }
  HLS_LATENCY(latency::memory_read)
  uint32_t row = 0;
  PlannedBlock<K> values = {};  // in the second pass
  while (row < launch.rows || values.begin.rows > 0) {
    HLS_TRIPS(1, 2 * K::rows + 1)
    PlannedBlock<K> keys = {};  // in the first pass
    keys.start_pass();
    if (values.begin.rows == 0 || values.whole) {
      const uint32_t begin = row;
      for (uint32_t i = 0; i < K::attention_rows; ++i) {
        HLS_PIPELINE(2)
        if (row == launch.rows || sequence[row] != sequence[begin]) continue;
        keys.begin.position[i] = position[row];
        keys.tokens = position[row] + 1;
        ++keys.begin.rows;
        ++row;
      }
      keys.pages = divide_up(keys.tokens, kPageTokens);
      if (keys.begin.rows > 0) {
        keys.table = launch.page_tables + sequence[begin] * launch.page_table_stride;
        combined.write(keys.begin.rows);
      }
    }
    const bool again = values.begin.rows > 0 && !values.whole;
    values.start_pass();
    if (values.begin.rows > 0) gathered.write(values.begin.rows);
    HLS_UNROLL_AHEAD
    for (uint32_t port = 0; port < K::kv_ports; ++port) {
      HLS_UNROLL
      if (keys.begin.rows > 0) scored[port].write(keys.begin);
      if (values.begin.rows > 0) softened[port].write(values.begin);
      if (values.begin.rows > 0) summed[port].write(values.begin);
    }
    Word key_ids = zero_word();
    Word value_ids = zero_word();
    const uint32_t pages = keys.pages > values.pages ? keys.pages : values.pages;
    for (uint32_t page = 0; page < pages; ++page) {
      HLS_TRIPS(1, divide_up(K::context, kPageTokens))
      HLS_PIPELINE(2)
      const uint32_t word = page / kFieldsPerWord;
      if (page % kFieldsPerWord == 0) {
        if (page < keys.pages) key_ids = read_word(desc, keys.table + word);
        if (page < values.pages) value_ids = read_word(desc, values.table + word);
      }
      if (page < keys.pages) {
        const PlannedPage<K> next = plan_page<K>(keys, get_lane(key_ids, page % kFieldsPerWord),
                                                 page, layer, steps, layout);
        HLS_UNROLL_AHEAD
        for (uint32_t port = 0; port < K::kv_ports; ++port) {
          HLS_UNROLL
          if (port != next.port) continue;
          requests[port].write(next.keys);
          scored[port].write(next.command);
        }
      }
      if (page < values.pages) {
        const PlannedPage<K> next = plan_page<K>(values, get_lane(value_ids, page % kFieldsPerWord),
                                                 page, layer, steps, layout);
        PageRequest request = next.keys;
        request.values = true;
        HLS_UNROLL_AHEAD
        for (uint32_t port = 0; port < K::kv_ports; ++port) {
          HLS_UNROLL
          if (port != next.port) continue;
          if (!next.command.flag) {
            requests[port].write(next.keys);
            scored[port].write(next.command);
          }
          requests[port].write(request);
          softened[port].write(next.command);
          summed[port].write(next.command);
        }
      }
    }
    HLS_UNROLL_AHEAD
    for (uint32_t port = 0; port < K::kv_ports; ++port) {
      HLS_UNROLL
      const Command end_of_pass = {kEndOfPass, !keys.whole, 0, 0, 0, {}};
      if (keys.begin.rows > 0 || again) scored[port].write(end_of_pass);
      if (values.begin.rows > 0) softened[port].write(end_of_pass);
      if (values.begin.rows > 0) summed[port].write(end_of_pass);
    }
    values = keys;
  }
  const Command end = {kEndOfBlocks, false, 0, 0, 0, {}};
  const PageRequest no_page = {true, false, 0, 0, 0};
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    requests[port].write(no_page);
    scored[port].write(end);
    softened[port].write(end);
    summed[port].write(end);
  }
  combined.write(0);
  gathered.write(0);
}

}  // namespace kernels
}  // namespace flexllm
