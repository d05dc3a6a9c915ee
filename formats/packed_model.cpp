#include "formats/packed_model.h"

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "formats/error.h"
#include "formats/json_text.h"
#include "formats/packed_info.h"
#include "formats/sha256.h"

namespace flexllm::formats {
namespace {

constexpr uint32_t kMaxStreams = 32;
constexpr uint64_t kMetadataCapacity = 64u << 10;
constexpr uint64_t kWordBytes = 64;
constexpr const char* kBasis = "basis";
constexpr const char* kFinalGain = "final_gain";
constexpr const char* kGainsFolded = "folded";  // metadata "gains"

std::string arena_name(uint32_t stream) {
  const std::string digits = std::to_string(stream);
  return "arena." + std::string(digits.size() < 2 ? "0" : "") + digits;
}

}  // namespace

PackedModel::PackedModel(const std::filesystem::path& path, Check check) : file_(path) {
  read_info();
  read_tensors();
  if (check == Check::checksums) verify_checksums();
}

bool PackedModel::is_packed(const std::filesystem::path& path) noexcept {
  try {
    const SafetensorsFile file(path);
    const auto found = file.metadata().find("format");
    return found != file.metadata().end() && found->second == "flexllm-packed";
  } catch (const std::exception&) {
    return false;
  }
}

void PackedModel::read_info() {
  info_ = info_from_metadata(path(), file_.metadata());
  const SafetensorsTensor* tokenizer = file_.find("tokenizer");
  if (tokenizer == nullptr) throw Error(path(), "tensor \"tokenizer\"", "is missing");
  info_.tokenizer = tokenizer_from_bytes(path(), tokenizer->data);
  if (info_.tokenizer.tokens.size() > config().vocab) {
    throw Error(path(), "tensor \"tokenizer\"", "has more tokens than the model's vocabulary");
  }
}

void PackedModel::read_tensors() {
  const auto bytes_of = [this](const std::string& name) {
    const SafetensorsTensor* tensor = file_.find(name);
    if (tensor == nullptr) throw Error(path(), "tensor \"" + name + "\"", "is missing");
    if (tensor->type != DType::u8 || tensor->data.empty() ||
        tensor->data.size() % kWordBytes != 0) {
      throw Error(path(), "tensor \"" + name + "\"", "is not whole 64-byte words of U8");
    }
    if (reinterpret_cast<uintptr_t>(tensor->data.data()) % kWordBytes != 0) {
      throw Error(path(), "tensor \"" + name + "\"", "is not aligned to 64 bytes");
    }
    return tensor->data;
  };
  for (uint32_t s = 0; s < kMaxStreams && file_.find(arena_name(s)) != nullptr; ++s) {
    arenas_.push_back(bytes_of(arena_name(s)));
    if (arenas_.back().size() != arenas_.front().size()) {
      throw Error(path(), "tensor \"" + arena_name(s) + "\"", "is not as long as arena.00");
    }
  }
  if (arenas_.empty()) throw Error(path(), "tensor \"arena.00\"", "is missing");
  model_buffer_ = bytes_of("model");
  embedding_ = file_.find("embedding");
  const std::vector<uint64_t> shape = {config().vocab, config().hidden};
  if (embedding_ == nullptr || embedding_->shape != shape ||
      (embedding_->type != DType::f16 && embedding_->type != DType::f32)) {
    throw Error(path(), "tensor \"embedding\"", "is not F16 or F32 of [vocab, hidden]");
  }
  check_basis();
}

void PackedModel::check_basis() const {
  const auto gains = file_.metadata().find("gains");
  if (gains != file_.metadata().end() && gains->second != kGainsFolded) {
    throw Error(path(), "metadata \"gains\"", std::string("is not ") + kGainsFolded);
  }
  const bool folded = gains != file_.metadata().end();
  const auto check = [&](const char* name, const std::vector<uint64_t>& shape) {
    const SafetensorsTensor* tensor = file_.find(name);
    const std::string place = "tensor \"" + std::string(name) + "\"";
    if ((tensor != nullptr) != folded) {
      throw Error(path(), place, folded ? "is missing" : "is there, but metadata \"gains\" is not");
    }
    if (tensor != nullptr && (tensor->type != DType::f32 || tensor->shape != shape)) {
      throw Error(path(), place, "is not F32 of the model's hidden size");
    }
  };
  const uint64_t hidden = config().hidden;
  check(kBasis, {hidden, hidden});
  check(kFinalGain, {hidden});
}

void PackedModel::verify_checksums() const {
  const auto found = file_.metadata().find("checksums");
  if (found == file_.metadata().end()) throw Error(path(), "metadata", "has no \"checksums\"");
  const Json json = parse_json(path(), "metadata \"checksums\"", found->second, kMetadataCapacity);
  const JsonObject sums(path(), "checksums", json);
  for (const SafetensorsTensor& tensor : file_.tensors()) {
    if (sums.string(tensor.name) != to_hex(sha256(tensor.data))) {
      throw Error(path(), "tensor \"" + tensor.name + "\"",
                  "does not match its checksum: the file is damaged, pack the model again");
    }
  }
}

void PackedModel::embedding_row(uint32_t token, std::span<float> out) const {
  if (token >= config().vocab || out.size() != config().hidden) {
    throw std::out_of_range("embedding_row: no such row");
  }
  const size_t bytes = out.size() * block_size(embedding_->type).bytes;
  to_f32(embedding_->type, embedding_->data.subspan(size_t{token} * bytes, bytes), out);
}

std::optional<HiddenBasis> PackedModel::hidden_basis() const {
  const SafetensorsTensor* matrix = file_.find(kBasis);
  if (matrix == nullptr) return std::nullopt;
  HiddenBasis basis;
  const auto read = [](const SafetensorsTensor& tensor, std::vector<float>& values) {
    values.resize(tensor.data.size() / sizeof(float));
    to_f32(tensor.type, tensor.data, values);
  };
  read(*matrix, basis.matrix);
  read(*file_.find(kFinalGain), basis.final_gain);
  return basis;
}

void HiddenBasis::store(std::span<const float> state, std::span<float> out) const {
  const size_t hidden = final_gain.size();
  if (state.size() != hidden || out.size() != hidden) {
    throw std::invalid_argument("HiddenBasis: a row of another size");
  }
  std::vector<double> sums(hidden);
  for (size_t i = 0; i < hidden; ++i) {
    for (size_t j = 0; j < hidden; ++j) sums[j] += double{state[i]} * matrix[i * hidden + j];
  }
  for (size_t j = 0; j < hidden; ++j) out[j] = static_cast<float>(sums[j]);
}

void HiddenBasis::restore(std::span<const float> stored, bool final_norm,
                          std::span<float> out) const {
  const size_t hidden = final_gain.size();
  if (stored.size() != hidden || out.size() != hidden) {
    throw std::invalid_argument("HiddenBasis: a row of another size");
  }
  for (size_t i = 0; i < hidden; ++i) {
    double sum = 0;
    for (size_t j = 0; j < hidden; ++j) sum += double{stored[j]} * matrix[i * hidden + j];
    out[i] = static_cast<float>(final_norm ? sum * final_gain[i] : sum);
  }
}

uint16_t to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude > 65504.0f) return static_cast<uint16_t>(sign | 0x7bffu);
  if (magnitude < 0x1p-14f) {
    // Subnormal: the sum has the ulp of a binary16 subnormal.
    const float shifted = magnitude + 0x1p-1f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = (bits & 0x7fffffffu) + 0xfffu + ((bits >> 13) & 1u);
  const uint32_t half = (rounded - (112u << 23)) >> 13;
  return static_cast<uint16_t>(sign | (half > 0x7bffu ? 0x7bffu : half));
}

struct PackedModelWriter::State {
  PackedModelInfo info;
  std::vector<std::byte> tokenizer;
  DType embedding;
  std::optional<HiddenBasis> basis;
  SafetensorsWriter writer;
  Sha256 embedding_sum;
  Json checksums = Json::object();

  void write(const std::string& name, std::span<const std::byte> bytes) {
    writer.write(name, bytes);
    checksums[name] = to_hex(sha256(bytes));
  }

  static std::vector<SafetensorsHead> heads(const PackedModelInfo& info, uint32_t streams,
                                            uint64_t arena_bytes, uint64_t model_bytes,
                                            DType embedding, bool basis, uint64_t tokenizer_bytes) {
    std::vector<SafetensorsHead> list;
    for (uint32_t s = 0; s < streams; ++s)
      list.push_back({arena_name(s), DType::u8, {arena_bytes}});
    list.push_back({"model", DType::u8, {model_bytes}});
    list.push_back({"embedding", embedding, {info.config.vocab, info.config.hidden}});
    if (basis) {
      list.push_back({kBasis, DType::f32, {info.config.hidden, info.config.hidden}});
      list.push_back({kFinalGain, DType::f32, {info.config.hidden}});
    }
    list.push_back({"tokenizer", DType::u8, {tokenizer_bytes}});
    return list;
  }
};

PackedModelWriter::PackedModelWriter(const std::filesystem::path& path, PackedModelInfo info,
                                     uint32_t streams, uint64_t arena_bytes, uint64_t model_bytes,
                                     DType embedding, std::optional<HiddenBasis> basis) {
  std::vector<std::byte> tokenizer = tokenizer_to_bytes(info.tokenizer);
  auto heads = State::heads(info, streams, arena_bytes, model_bytes, embedding, basis.has_value(),
                            tokenizer.size());
  state_ = std::unique_ptr<State>(new State{
      std::move(info), std::move(tokenizer), embedding, std::move(basis),
      SafetensorsWriter(path, std::move(heads), kMetadataCapacity), Sha256(), Json::object()});
}

PackedModelWriter::~PackedModelWriter() = default;

void PackedModelWriter::write_arena(uint32_t stream, std::span<const std::byte> bytes) {
  state_->write(arena_name(stream), bytes);
}

void PackedModelWriter::write_model_buffer(std::span<const std::byte> bytes) {
  state_->write("model", bytes);
}

void PackedModelWriter::write_embedding(std::span<const float> rows) {
  const auto put = [this](std::span<const std::byte> bytes) {
    state_->writer.write("embedding", bytes);
    state_->embedding_sum.update(bytes);
  };
  if (state_->embedding == DType::f32) {
    put(std::as_bytes(rows));
  } else {
    std::vector<uint16_t> halves;
    halves.reserve(rows.size());
    for (const float value : rows) halves.push_back(to_f16(value));
    put(std::as_bytes(std::span(halves)));
  }
}

void PackedModelWriter::commit() {
  state_->checksums["embedding"] = to_hex(state_->embedding_sum.finish());
  auto metadata = info_to_metadata(state_->info);
  if (state_->basis) {
    state_->write(kBasis, std::as_bytes(std::span(state_->basis->matrix)));
    state_->write(kFinalGain, std::as_bytes(std::span(state_->basis->final_gain)));
    metadata["gains"] = kGainsFolded;
  }
  state_->write("tokenizer", state_->tokenizer);
  metadata["checksums"] = state_->checksums.dump();
  state_->writer.commit(metadata);
}

}  // namespace flexllm::formats
