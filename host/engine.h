// The engine: one model on one card, driven launch by launch through XRT.
//
// Owned and called by one thread (the scheduler's). It turns rows into descriptors, keeps at most
// one prefill and one decode launch in flight, and hands the row outputs back. What the pages hold
// and who may use them is the caller's business (kv_pages.h only hands out ids).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "host/device_error.h"
#include "host/kv_pages.h"
#include "host/telemetry.h"

namespace flexllm::formats {
class PackedModel;
}

namespace flexllm::host {

enum class Stage { prefill, decode };

// What a row asks for; any combination.
struct RowOutputs {
  bool residual = false;        // hidden state after `layer_end`
  bool final_norm = false;      // the same after the final norm
  bool target_logprob = false;  // log-probability of `Row::target`
  bool row_result = false;      // arg-max, extrema and the 64 largest logits
};

// One token position of one sequence. Rows of a sequence stand in ascending position.
struct Row {
  uint32_t sequence = 0;  // index into Launch::sequences
  uint32_t position = 0;  // 0-based; its page must be in the sequence's page table
  uint32_t token = 0;     // its embedding is the input, unless `hidden` is given
  std::span<const float>
      hidden;  // input row of `hidden` floats in the model's stored basis, or empty
  RowOutputs outputs;
  uint32_t target = 0;
};

struct Launch {
  Stage stage = Stage::decode;
  std::vector<std::span<const PageId>> sequences;  // page table of each sequence
  std::vector<Row> rows;
  uint32_t layer_begin = 0;
  uint32_t layer_end = UINT32_MAX;  // exclusive; clipped to the model's layers
};

// Outputs of one row. Spans point into the engine's result buffer and are valid until the next
// start() of the same stage.
struct RowOutput {
  std::span<const float> residual;
  std::span<const float> final_norm;
  uint32_t argmax = 0;
  float max = 0;
  float log_sum_exp = 0;
  float target_logprob = 0;
  std::span<const float> top_logits;  // up to 64, descending; ties by ascending id
  std::span<const uint32_t> top_ids;
};

struct LaunchResult {
  std::vector<RowOutput> rows;              // in the order of Launch::rows
  std::chrono::nanoseconds kernel_time{0};  // start to completion, as the host saw it
};

struct EngineLimits {
  uint32_t max_prefill_rows = 0;  // rows of one prefill launch; 0: the build has no such kernel
  uint32_t max_batch = 0;         // rows of one decode launch; likewise
  uint32_t max_logits_rows = 0;   // rows of one prefill launch that may ask for logits; in a decode
                                  // launch all may
  uint32_t context_length = 0;    // positions of a sequence
  uint32_t page_tokens = 0;
  uint32_t pages = 0;
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t vocab = 0;
};

struct EngineOptions {
  std::string device = "0";          // XRT device index or BDF
  std::filesystem::path bitstream;   // .xclbin
  std::filesystem::path memory_map;  // JSON of scripts/accelerator.py; empty: bitstream with .json
  uint64_t max_kv_bytes = 0;         // 0: all that the KV banks hold
  // Fill card memory through one small buffer where the card can copy between its banks; false:
  // always keep a host copy of weights and scratch, for a shell whose copies are slow or broken.
  bool card_copies = true;
  std::chrono::milliseconds launch_timeout{30000};
  std::string reset_command;  // shell command, run by recover(); empty: no reset, only reopen
  std::chrono::milliseconds reset_timeout{60000};     // after this the reset command is killed
  std::chrono::milliseconds recovery_timeout{30000};  // for the card to answer after the reset
};

class Engine {
 public:
  // Opens the card, loads the bitstream and streams the weights to it. The model stays mapped.
  static tl::expected<std::unique_ptr<Engine>, DeviceError> open(
      const EngineOptions& options, std::shared_ptr<const formats::PackedModel> model);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const EngineLimits& limits() const;
  PageAllocator& pages();

  // Starts a launch; the other stage may be running, this one must be idle. Errors of the caller
  // (too many rows, a position beyond its page table) throw std::invalid_argument.
  tl::expected<void, DeviceError> start(const Launch& launch);
  // True between start() and the wait() that ends the launch.
  bool running(Stage stage) const;
  // True if wait() would not block.
  bool finished(Stage stage) const;
  // Waits for the running launch of `stage`, at most launch_timeout after its start. After a
  // time-out, a failed copy or a lost card the engine must be recovered; until then start() fails.
  // A launch that failed or was refused leaves it usable.
  tl::expected<LaunchResult, DeviceError> wait(Stage stage);
  tl::expected<LaunchResult, DeviceError> run(const Launch& launch);  // start and wait

  // The full logits of row `row` of the last completed launch of `stage`, which must have asked for
  // a row result or a target log-probability. Until the next start() of that stage; the other may
  // run.
  tl::expected<std::vector<float>, DeviceError> logits(Stage stage, uint32_t row);

  // A KV page as bytes (docs/kv-cache.md), to move it to another card or to compare it. No launch
  // that uses the page may be running. `copy_failed` where the card cannot copy by itself.
  tl::expected<std::vector<std::byte>, DeviceError> read_page(PageId page);
  tl::expected<void, DeviceError> write_page(PageId page, std::span<const std::byte> bytes);

  // The reset ladder after an error: close every handle (the driver aborts what still runs), reset
  // command, reopen, reload bitstream and weights. The contents of all KV pages are lost;
  // allocations stay as they are. If it fails it may be tried again.
  tl::expected<void, DeviceError> recover();

  // Lives on when the engine is gone.
  std::shared_ptr<const DeviceTelemetry> telemetry() const;

  // One line for logs: card, shell, accelerator, and how weights reached it.
  std::string description() const;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace flexllm::host
