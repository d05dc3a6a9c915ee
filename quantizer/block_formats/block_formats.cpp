#include "quantizer/block_formats/block_formats.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "formats/packed_model.h"

namespace flexllm::quantizer {
namespace {

constexpr BlockFormat kFormats[] = {BlockFormat::q4_0, BlockFormat::q4_1, BlockFormat::q8_0};

float through_f16(float value) {
  const uint16_t half = formats::to_f16(value);
  float back = 0;
  formats::to_f32(formats::DType::f16, std::as_bytes(std::span(&half, 1)), std::span(&back, 1));
  return back;
}

float inverse_of(float step) { return step == 0 ? 0 : 1 / step; }

// The magnitude that is largest, the first of equals, maps to -8.
void round_q4_0(std::span<float> block) {
  const float widest = *std::ranges::max_element(
      block, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  const float step = widest / -8;
  const float inverse = inverse_of(step);
  const float stored = through_f16(step);
  for (float& x : block) {
    const float q = std::clamp(std::trunc(x * inverse + 8.5f), 0.0f, 15.0f);
    x = stored * (q - 8);
  }
}

void round_q4_1(std::span<float> block) {
  const auto [low, high] = std::ranges::minmax(block);
  const float step = (high - low) / 15;
  const float inverse = inverse_of(step);
  const float stored = through_f16(step);
  const float minimum = through_f16(low);
  for (float& x : block) {
    const float q = std::clamp(std::trunc((x - low) * inverse + 0.5f), 0.0f, 15.0f);
    x = stored * q + minimum;
  }
}

void round_q8_0(std::span<float> block) {
  float widest = 0;
  for (const float x : block) widest = std::max(widest, std::fabs(x));
  const float step = widest / 127;
  const float inverse = inverse_of(step);
  const float stored = through_f16(step);
  for (float& x : block) x = std::round(x * inverse) * stored;  // halves away from zero
}

}  // namespace

BlockFormat parse_block_format(std::string_view name) {
  for (const BlockFormat format : kFormats) {
    if (name == to_string(format)) return format;
  }
  throw std::invalid_argument("there is no block format '" + std::string(name) +
                              "' (q4_0, q4_1, q8_0)");
}

const char* to_string(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_0:
      return "q4_0";
    case BlockFormat::q4_1:
      return "q4_1";
    case BlockFormat::q8_0:
      return "q8_0";
  }
  return "";
}

double bits_per_weight(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_0:
      return 4.5;
    case BlockFormat::q4_1:
      return 5;
    case BlockFormat::q8_0:
      return 8.5;
  }
  return 0;
}

void round_to_blocks(BlockFormat format, std::span<float> row) {
  if (row.size() % kBlockElements != 0) {
    throw std::invalid_argument("a row of block formats is a multiple of 32 elements");
  }
  for (size_t at = 0; at < row.size(); at += kBlockElements) {
    const std::span<float> block = row.subspan(at, kBlockElements);
    switch (format) {
      case BlockFormat::q4_0:
        round_q4_0(block);
        break;
      case BlockFormat::q4_1:
        round_q4_1(block);
        break;
      case BlockFormat::q8_0:
        round_q8_0(block);
        break;
    }
  }
}

BlockRoundedCheckpoint::BlockRoundedCheckpoint(const formats::Checkpoint& source,
                                               BlockFormat linears,
                                               std::optional<BlockFormat> embeddings)
    : source_(source), linears_(linears), embeddings_(embeddings) {}

std::optional<BlockFormat> BlockRoundedCheckpoint::format_of(
    const formats::TensorInfo& info) const {
  if (info.shape.size() != 2 || info.shape[1] % kBlockElements != 0) return std::nullopt;
  const bool outside = info.name == "model.embed_tokens.weight" || info.name == "lm_head.weight";
  return outside ? embeddings_ : linears_;
}

void BlockRoundedCheckpoint::read_rows_f32(std::string_view name, uint64_t first_row,
                                           uint64_t n_rows, std::span<float> out) const {
  source_.read_rows_f32(name, first_row, n_rows, out);
  const formats::TensorInfo& info = *source_.find(name);
  if (const auto format = format_of(info)) round_to_blocks(*format, out);
}

}  // namespace flexllm::quantizer
