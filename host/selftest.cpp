#include "host/selftest.h"

#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "host/memory_map.h"
#include "host/model_header.h"
#include "host/tiny_model.h"
#include "host/twin_reference.h"
#include "kernels/contract/layout.h"

namespace flexllm::host {
namespace {

namespace fs = std::filesystem;
using kernels::kPageTokens;
using kernels::kWordBytes;

// Rows of the two sequences: both cross pages, one ends inside a page.
constexpr uint32_t kFirstRows = 70;
constexpr uint32_t kSecondRows = 37;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "flexllm-selftest-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      throw fs::filesystem_error("cannot make a temporary folder", pattern,
                                 std::error_code(errno, std::generic_category()));
    }
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string hex(float value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.9g (0x%08x)", static_cast<double>(value),
                std::bit_cast<uint32_t>(value));
  return text;
}

// The first element that differs in its bits, in words; empty if none does.
std::string difference(std::span<const float> card, std::span<const float> twin) {
  if (card.size() != twin.size()) return "has another size";
  for (size_t i = 0; i < card.size(); ++i) {
    if (std::bit_cast<uint32_t>(card[i]) == std::bit_cast<uint32_t>(twin[i])) continue;
    return "element " + std::to_string(i) + " is " + hex(card[i]) + " instead of " + hex(twin[i]);
  }
  return {};
}

std::string difference(float card, float twin) {
  return difference(std::span(&card, 1), std::span(&twin, 1));
}

class Comparison {
 public:
  Comparison(Engine& engine, TwinReference& twin, const ModelHeader& header)
      : engine_(engine), twin_(twin), header_(header) {}

  tl::expected<SelftestReport, DeviceError> run();

 private:
  using Done = tl::expected<void, DeviceError>;

  Launch rows_of(Stage stage, uint32_t first_begin, uint32_t first_end, uint32_t second_begin,
                 uint32_t second_end) const;
  Done layer_by_layer(Launch launch);
  Done whole(Launch launch);
  Done compare(const Launch& launch, const std::string& where);
  Done compare_pages(const Launch& launch, const std::string& where);
  void note(const std::string& where, const std::string& what);
  bool differs() const { return !report_.difference.empty(); }

  Engine& engine_;
  TwinReference& twin_;
  const ModelHeader header_;
  std::vector<PageId> first_, second_;
  std::vector<RowOutput> expected_;  // of the twin, for the last launch
  SelftestReport report_;
};

void Comparison::note(const std::string& where, const std::string& what) {
  if (!what.empty() && !differs()) report_.difference = where + ": " + what;
}

// Rows [begin, end) of each sequence, the sequences in turn, with tokens all over the vocabulary.
Launch Comparison::rows_of(Stage stage, uint32_t first_begin, uint32_t first_end,
                           uint32_t second_begin, uint32_t second_end) const {
  Launch launch;
  launch.stage = stage;
  launch.sequences = {first_, second_};
  const uint32_t count = std::max(first_end - first_begin, second_end - second_begin);
  for (uint32_t i = 0; i < count; ++i) {
    for (const uint32_t sequence : {0u, 1u}) {
      const uint32_t position = (sequence == 0 ? first_begin : second_begin) + i;
      if (position >= (sequence == 0 ? first_end : second_end)) continue;
      Row row;
      row.sequence = sequence;
      row.position = position;
      row.token = (position * 97 + sequence * 31 + 11) % header_.vocab;
      row.target = (position * 13 + 7) % header_.vocab;
      launch.rows.push_back(row);
    }
  }
  return launch;
}

Comparison::Done Comparison::compare(const Launch& launch, const std::string& where) {
  const auto card = engine_.run(launch);
  if (!card) return tl::unexpected(card.error());
  auto twin = twin_.run(launch);
  if (!twin) return tl::unexpected(twin.error());
  expected_ = std::move(*twin);
  ++report_.launches;
  for (uint32_t i = 0; i < launch.rows.size() && !differs(); ++i) {
    const RowOutput& is = card->rows[i];
    const RowOutput& should = expected_[i];
    const std::string row = where + ", row " + std::to_string(i);
    note(row + ", residual", difference(is.residual, should.residual));
    note(row + ", final norm", difference(is.final_norm, should.final_norm));
    const RowOutputs& asked = launch.rows[i].outputs;
    if (!asked.row_result && !asked.target_logprob) continue;
    const auto logits = engine_.logits(launch.stage, i);
    if (!logits) return tl::unexpected(logits.error());
    note(row + ", logits", difference(*logits, twin_.logits(i)));
    note(row + ", maximum", difference(is.max, should.max));
    note(row + ", log-sum-exp", difference(is.log_sum_exp, should.log_sum_exp));
    note(row + ", target log-probability", difference(is.target_logprob, should.target_logprob));
    note(row + ", largest logits", difference(is.top_logits, should.top_logits));
    if (is.argmax != should.argmax ||
        !std::equal(is.top_ids.begin(), is.top_ids.end(), should.top_ids.begin())) {
      note(row + ", ids of the largest logits", "they differ");
    }
  }
  return compare_pages(launch, where);
}

// The records of the launch's rows in the layers it ran: what the rest of a page holds is
// undefined.
Comparison::Done Comparison::compare_pages(const Launch& launch, const std::string& where) {
  const kernels::KvLayout kv{header_.layers, header_.kv_heads, header_.head_dim};
  const uint32_t last_layer = std::min(launch.layer_end, header_.layers);
  for (const Row& row : launch.rows) {
    if (differs()) return {};
    const PageId page = launch.sequences[row.sequence][row.position / kPageTokens];
    const uint32_t token = row.position % kPageTokens;
    const auto card = engine_.read_page(page);
    if (!card && card.error().kind == DeviceError::Kind::copy_failed && !report_.compared_pages) {
      return {};
    }
    if (!card) return tl::unexpected(card.error());
    report_.compared_pages = true;
    const std::span<const std::byte> twin = twin_.page(page);
    for (uint32_t layer = launch.layer_begin; layer < last_layer; ++layer) {
      const auto part = [&](const char* name, uint32_t words_before, uint32_t words) {
        const size_t at =
            size_t{layer * kv.layer_words() + words_before + token * words} * kWordBytes;
        const size_t bytes = size_t{words} * kWordBytes;
        if (std::equal(twin.begin() + static_cast<std::ptrdiff_t>(at),
                       twin.begin() + static_cast<std::ptrdiff_t>(at + bytes),
                       card->begin() + static_cast<std::ptrdiff_t>(at))) {
          return;
        }
        note(where + ", KV cache, layer " + std::to_string(layer),
             std::string(name) + " of position " + std::to_string(row.position) + " of sequence " +
                 std::to_string(row.sequence) + " differ");
      };
      part("scales", 0, kv.scale_words());
      part("keys", kv.keys(), kv.token_words());
      part("values", kv.values(), kv.token_words());
    }
  }
  return {};
}

// One launch for each layer, on what the twin says the layer before gave: a difference belongs to
// the layer that it is found in.
Comparison::Done Comparison::layer_by_layer(Launch launch) {
  std::vector<std::vector<float>> hidden(launch.rows.size());
  for (Row& row : launch.rows) row.outputs = {.residual = true};
  const std::string stage = launch.stage == Stage::prefill ? "prefill" : "decode";
  for (uint32_t layer = 0; layer < header_.layers && !differs(); ++layer) {
    launch.layer_begin = layer;
    launch.layer_end = layer + 1;
    if (auto done = compare(launch, stage + ", layer " + std::to_string(layer)); !done) return done;
    for (size_t i = 0; i < launch.rows.size(); ++i) {
      hidden[i].assign(expected_[i].residual.begin(), expected_[i].residual.end());
      launch.rows[i].hidden = hidden[i];
    }
  }
  return {};
}

Comparison::Done Comparison::whole(Launch launch) {
  const std::string stage = launch.stage == Stage::prefill ? "prefill" : "decode";
  const size_t with_logits = std::min<size_t>(launch.rows.size(), 4);
  for (size_t i = 0; i < launch.rows.size(); ++i) {
    const bool last = i + with_logits >= launch.rows.size();
    launch.rows[i].outputs = {
        .residual = true, .final_norm = true, .target_logprob = last, .row_result = last};
  }
  return compare(launch, stage + ", all layers");
}

tl::expected<SelftestReport, DeviceError> Comparison::run() {
  const auto first = engine_.pages().allocate(kernels::divide_up(kFirstRows + 1, kPageTokens));
  const auto second = engine_.pages().allocate(kernels::divide_up(kSecondRows + 1, kPageTokens));
  if (!first || !second) {
    return tl::unexpected(
        DeviceError{DeviceError::Kind::out_of_memory, "there are too few KV pages"});
  }
  first_ = *first;
  second_ = *second;
  const EngineLimits& limits = engine_.limits();
  std::vector<Launch> launches;
  if (limits.max_prefill_rows >= kFirstRows + kSecondRows) {
    launches.push_back(rows_of(Stage::prefill, 0, kFirstRows, 0, kSecondRows));
  }
  if (limits.max_batch >= 4) {
    // Without prefill this is all that the pages get; then a step at the same place for all rows.
    const bool alone = launches.empty();
    for (uint32_t i = 0; alone && i < kSecondRows; i += 2) {
      launches.push_back(rows_of(Stage::decode, i, i + 2, i, std::min(i + 2, kSecondRows)));
    }
    const uint32_t at = alone ? kSecondRows + 1 : kFirstRows;
    launches.push_back(rows_of(Stage::decode, at, at + 1, kSecondRows, kSecondRows + 1));
  }
  for (const Launch& launch : launches) {
    if (differs()) break;
    if (auto done = layer_by_layer(launch); !done) return tl::unexpected(done.error());
    if (differs()) break;
    if (auto done = whole(launch); !done) return tl::unexpected(done.error());
  }
  report_.passed = !differs() && report_.launches > 0;
  return report_;
}

}  // namespace

tl::expected<SelftestReport, DeviceError> run_selftest(const EngineOptions& options) {
  EngineOptions own = options;
  if (own.memory_map.empty()) own.memory_map = fs::path(own.bitstream).replace_extension(".json");
  own.max_kv_bytes = uint64_t{16} << 20;
  const auto map = read_memory_map(own.memory_map);
  if (!map) return tl::unexpected(map.error());
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "selftest.flexllm";
  write_tiny_model(file, map->weight_streams);
  const auto model = std::make_shared<const formats::PackedModel>(file);
  const auto header = read_model_header(*model, *map);
  if (!header) return tl::unexpected(header.error());
  const auto engine = Engine::open(own, model);
  if (!engine) return tl::unexpected(engine.error());
  TwinReference twin(*model, *map, *header, (*engine)->limits().pages);
  return Comparison(**engine, twin, *header).run();
}

}  // namespace flexllm::host
