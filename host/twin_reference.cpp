#include "host/twin_reference.h"

#include <algorithm>

#include "host/session.h"
#include "kernels/contract/launch.h"
#include "kernels/twin/twin.h"

namespace flexllm::host {
namespace {

namespace twin = kernels::twin;

template <typename Buffer>
std::span<uint32_t> fields_of(Buffer& buffer) {
  return {buffer.data()->fields, buffer.size() * kernels::kFieldsPerWord};
}

template <typename Buffer>
twin::Span span_of(Buffer& buffer) {
  return {reinterpret_cast<std::byte*>(buffer.data()), buffer.size() * kernels::kWordBytes};
}

// The twin reads weights and model only, but its spans are those of card memory.
twin::Span span_of(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

TwinReference::TwinReference(const formats::PackedModel& model, const MemoryMap& map,
                             const ModelHeader& header, uint32_t pages)
    : model_(model), map_(map), header_(header), kv_(map.kv_streams) {
  const uint64_t scratch_bytes = uint64_t{1} << 28;  // a bank; only what is needed is taken of it
  shape_ = plan_stage(Stage::prefill, map, header, pages, scratch_bytes).value();
  desc_.resize(shape_.descriptor_words());
  result_.resize(shape_.result_words());
  scratch_.resize(scratch_words(shape_, header));
  const uint64_t arena_words =
      kernels::divide_up(pages, map.kv_streams) * header.page_bytes() / kernels::kWordBytes;
  for (Buffer& arena : kv_) arena.resize(arena_words);
}

tl::expected<std::vector<RowOutput>, DeviceError> TwinReference::run(const Launch& launch) {
  const auto embedding = [this](uint32_t token, std::span<float> out) {
    model_.embedding_row(token, out);
  };
  plan_ = write_descriptor(launch, shape_, next_id_++, embedding, fields_of(desc_));
  std::vector<twin::Span> weights;
  for (uint32_t s = 0; s < model_.streams(); ++s) weights.push_back(span_of(model_.arena(s)));
  std::vector<twin::Span> kv;
  for (Buffer& arena : kv_) kv.push_back(span_of(arena));
  const twin::Buffers buffers{.desc = span_of(desc_),
                              .model = span_of(model_.model_buffer()),
                              .result = span_of(result_),
                              .scratch = span_of(scratch_),
                              .weights = weights,
                              .kv = kv};
  const MemoryMap::Maxima& maxima = map_.maxima;
  twin::run(buffers, {.rows = shape_.rows,
                      .hidden = maxima.hidden,
                      .ffn = maxima.ffn,
                      .heads = maxima.heads,
                      .kv_heads = maxima.kv_heads,
                      .head_dim = maxima.head_dim,
                      .context = maxima.context,
                      .vocab = maxima.vocab});
  return read_results(plan_, shape_, fields_of(result_));
}

std::span<const float> TwinReference::logits(uint32_t row) const {
  const uint64_t words = kernels::logits_words(shape_.vocab);
  const Word* at = scratch_.data() + shape_.logits + plan_.rows.at(row).logits_slot * words;
  return {reinterpret_cast<const float*>(at), shape_.vocab};
}

std::span<const std::byte> TwinReference::page(PageId page) const {
  const Buffer& arena = kv_[page % map_.kv_streams];
  const uint64_t bytes = header_.page_bytes();
  return std::as_bytes(std::span(arena)).subspan(page / map_.kv_streams * bytes, bytes);
}

}  // namespace flexllm::host
