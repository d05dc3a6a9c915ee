#include "host/descriptor.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using kernels::divide_up;
using kernels::float_words;
using kernels::kFieldsPerWord;
namespace row_flag = kernels::row_flag;

constexpr uint32_t kHeaderWords = kernels::launch_field::fields / kFieldsPerWord;

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("launch: " + what);
}

std::string row_name(size_t row) { return "row " + std::to_string(row); }

uint32_t flags_of(const RowOutputs& outputs) {
  return (outputs.residual ? row_flag::residual : 0u) |
         (outputs.final_norm ? row_flag::final_norm : 0u) |
         (outputs.target_logprob ? row_flag::target_logprob : 0u) |
         (outputs.row_result ? row_flag::row_result : 0u);
}

bool needs_logits(const RowOutputs& outputs) {
  return (flags_of(outputs) & row_flag::needs_logits) != 0;
}

// The page tables that are written: one for each sequence with rows, in order of appearance.
struct Tables {
  std::vector<uint32_t> sequences;  // index into Launch::sequences
  std::vector<uint32_t> index;      // of each sequence among them
  std::vector<uint32_t> pages;      // entries of each that are looked at
  uint32_t stride = 0;              // words
};

Tables check(const Launch& launch, const LaunchShape& shape) {
  if (launch.rows.empty()) refuse("it has no rows");
  if (launch.rows.size() > shape.rows) {
    refuse("it has " + std::to_string(launch.rows.size()) + " rows; this stage takes " +
           std::to_string(shape.rows));
  }
  if (launch.layer_begin > std::min(launch.layer_end, shape.layers)) refuse("no such layers");
  constexpr uint32_t kNone = UINT32_MAX;
  Tables tables;
  tables.index.assign(launch.sequences.size(), kNone);
  std::vector<uint32_t> next(launch.sequences.size(), 0);
  uint32_t slots = 0;
  for (size_t i = 0; i < launch.rows.size(); ++i) {
    const Row& row = launch.rows[i];
    if (row.sequence >= launch.sequences.size()) refuse(row_name(i) + " has no page table");
    if (row.position >= shape.context) refuse(row_name(i) + " is beyond the context length");
    const std::span<const PageId> table = launch.sequences[row.sequence];
    const uint32_t pages = row.position / kernels::kPageTokens + 1;
    if (pages > table.size()) refuse(row_name(i) + " is beyond its page table");
    if (row.position < next[row.sequence]) refuse(row_name(i) + " is not in ascending position");
    next[row.sequence] = row.position + 1;
    if (row.hidden.empty() ? row.token >= shape.vocab : row.hidden.size() != shape.hidden) {
      refuse(row_name(i) + " has no valid input");
    }
    if (row.outputs.target_logprob && row.target >= shape.vocab) {
      refuse(row_name(i) + " has no such target");
    }
    slots += needs_logits(row.outputs) ? 1 : 0;
    uint32_t& index = tables.index[row.sequence];
    if (index == kNone) {
      index = static_cast<uint32_t>(tables.sequences.size());
      tables.sequences.push_back(row.sequence);
      tables.pages.push_back(0);
    }
    tables.pages[index] = pages;  // positions ascend
    tables.stride = std::max(tables.stride, divide_up(pages, kFieldsPerWord));
  }
  if (slots > shape.logits_slots) {
    refuse(std::to_string(slots) + " rows ask for logits; there is room for " +
           std::to_string(shape.logits_slots));
  }
  if (tables.sequences.size() * tables.stride > shape.page_table_words) {
    refuse("the page tables do not fit the descriptor");
  }
  for (size_t t = 0; t < tables.sequences.size(); ++t) {
    const std::span<const PageId> table = launch.sequences[tables.sequences[t]];
    for (uint32_t p = 0; p < tables.pages[t]; ++p) {
      if (table[p] >= shape.pages)
        refuse("KV page " + std::to_string(table[p]) + " does not exist");
    }
  }
  return tables;
}

std::string status_sentence(uint32_t status) {
  namespace s = kernels::launch_status;
  switch (status) {
    case s::bad_magic:
      return "the model or the descriptor is not one";
    case s::bad_version:
      return "host and kernel speak different contract versions";
    case s::beyond_maxima:
      return "the model or the launch is larger than this kernel build takes";
    case s::bad_layers:
      return "the layer range does not exist";
    case s::bad_row:
      return "a row is out of range";
    case s::bad_page:
      return "a KV page does not exist";
    case s::bad_offset:
      return "something lies outside its buffer";
    default:
      return "status " + std::to_string(status) + ", which this program does not know";
  }
}

std::span<const float> floats(std::span<const uint32_t> words, uint32_t word, uint32_t count) {
  const std::span<const uint32_t> part = words.subspan(size_t{word} * kFieldsPerWord, count);
  return {reinterpret_cast<const float*>(part.data()), part.size()};
}

}  // namespace

uint32_t LaunchShape::descriptor_words() const {
  return kHeaderWords + rows + page_table_words + rows * float_words(hidden);
}

uint32_t LaunchShape::result_words() const {
  return 1 + rows * 2 * float_words(hidden) + logits_slots * kernels::kRowResultWords;
}

LaunchPlan write_descriptor(const Launch& launch, const LaunchShape& shape, uint32_t id,
                            const EmbeddingRow& embedding, std::span<uint32_t> words) {
  const Tables tables = check(launch, shape);
  const uint32_t rows = static_cast<uint32_t>(launch.rows.size());
  const uint32_t row_table = kHeaderWords;
  const uint32_t page_tables = row_table + rows;
  const uint32_t table_count = static_cast<uint32_t>(tables.sequences.size());
  const uint32_t inputs = page_tables + table_count * tables.stride;
  const uint32_t row_words = float_words(shape.hidden);

  LaunchPlan plan;
  plan.id = id;
  plan.descriptor_words = inputs + rows * row_words;
  plan.result_words = 1;  // the completion record
  plan.rows.reserve(rows);
  const auto word = [&](uint32_t index) {
    return words.subspan(size_t{index} * kFieldsPerWord, kFieldsPerWord);
  };
  std::fill_n(words.begin(), size_t{inputs} * kFieldsPerWord, 0u);

  uint32_t slot = 0;
  for (uint32_t i = 0; i < rows; ++i) {
    namespace f = kernels::row_field;
    const Row& row = launch.rows[i];
    LaunchPlan::Row place{.outputs = row.outputs};
    const auto reserve = [&](bool wanted, uint32_t count) {
      const uint32_t at = wanted ? plan.result_words : 0;
      plan.result_words += wanted ? count : 0;
      return at;
    };
    place.residual = reserve(row.outputs.residual, row_words);
    place.final_norm = reserve(row.outputs.final_norm, row_words);
    place.row_result =
        reserve(needs_logits(row.outputs), row.outputs.row_result ? kernels::kRowResultWords : 1);
    if (needs_logits(row.outputs)) place.logits_slot = slot++;
    const auto entry = word(row_table + i);
    entry[f::sequence] = tables.index[row.sequence];
    entry[f::position] = row.position;
    entry[f::flags] = flags_of(row.outputs);
    entry[f::target] = row.outputs.target_logprob ? row.target : 0;
    entry[f::residual] = place.residual;
    entry[f::final_norm] = place.final_norm;
    entry[f::row_result] = place.row_result;
    entry[f::logits_slot] = place.logits_slot;
    plan.rows.push_back(place);

    const std::span<uint32_t> input =
        words.subspan(size_t{inputs + i * row_words} * kFieldsPerWord, shape.hidden);
    const std::span<float> values(reinterpret_cast<float*>(input.data()), input.size());
    if (row.hidden.empty()) {
      embedding(row.token, values);
    } else {
      std::copy(row.hidden.begin(), row.hidden.end(), values.begin());
    }
  }
  for (uint32_t t = 0; t < table_count; ++t) {
    const std::span<const PageId> table = launch.sequences[tables.sequences[t]];
    std::copy_n(table.begin(), tables.pages[t],
                words.subspan(size_t{page_tables + t * tables.stride} * kFieldsPerWord).begin());
  }

  namespace f = kernels::launch_field;
  const std::span<uint32_t> header = words.first(f::fields);
  header[f::magic] = kernels::kLaunchMagic;
  header[f::version] = kernels::kContractVersion;
  header[f::id] = id;
  header[f::layer_begin] = launch.layer_begin;
  header[f::layer_end] = std::min(launch.layer_end, shape.layers);
  header[f::rows] = rows;
  header[f::sequences] = table_count;
  header[f::row_table] = row_table;
  header[f::page_tables] = page_tables;
  header[f::page_table_stride] = tables.stride;
  header[f::inputs] = inputs;
  header[f::kv_streams] = shape.kv_streams;
  header[f::kv_pages] = shape.pages;
  header[f::logits] = shape.logits;
  header[f::logits_slots] = shape.logits_slots;
  header[f::work] = shape.work;
  header[f::result_words] = plan.result_words;
  return plan;
}

tl::expected<std::vector<RowOutput>, DeviceError> read_results(const LaunchPlan& plan,
                                                               const LaunchShape& shape,
                                                               std::span<const uint32_t> words) {
  namespace c = kernels::completion_field;
  const auto failed = [](std::string message) {
    return tl::unexpected(DeviceError{DeviceError::Kind::launch_failed, std::move(message)});
  };
  if (words[c::magic] != kernels::kResultMagic || words[c::id] != plan.id) {
    return failed("the kernel ended without writing the completion record of launch " +
                  std::to_string(plan.id));
  }
  if (words[c::version] != kernels::kContractVersion) {
    return failed("the kernel speaks contract version " + std::to_string(words[c::version]) +
                  "; this program speaks " + std::to_string(kernels::kContractVersion));
  }
  if (words[c::status] != kernels::launch_status::ok) {
    return failed("the kernel refused the launch: " + status_sentence(words[c::status]));
  }
  std::vector<RowOutput> outputs;
  outputs.reserve(plan.rows.size());
  for (const LaunchPlan::Row& place : plan.rows) {
    namespace r = kernels::result_field;
    RowOutput& out = outputs.emplace_back();
    if (place.outputs.residual) out.residual = floats(words, place.residual, shape.hidden);
    if (place.outputs.final_norm) out.final_norm = floats(words, place.final_norm, shape.hidden);
    if (!place.has_logits()) continue;
    const auto fields = words.subspan(size_t{place.row_result} * kFieldsPerWord, r::fields);
    out.argmax = fields[r::argmax];
    out.max = std::bit_cast<float>(fields[r::max]);
    out.log_sum_exp = std::bit_cast<float>(fields[r::log_sum_exp]);
    out.target_logprob = std::bit_cast<float>(fields[r::target_logprob]);
    if (!place.outputs.row_result) continue;
    const uint32_t ids = place.row_result + 1 + kernels::kTopLogits / kFieldsPerWord;
    const uint32_t count = std::min(kernels::kTopLogits, shape.vocab);
    out.top_logits = floats(words, place.row_result + 1, count);
    out.top_ids = words.subspan(size_t{ids} * kFieldsPerWord, count);
  }
  return outputs;
}

}  // namespace flexllm::host
