#include "tokenizer/sentencepiece_proto.h"

#include <bit>
#include <cstdint>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {
namespace {

using formats::TokenizerSource;
using formats::TokenType;

// A protocol buffer message under construction; field numbers are those of the .proto file.
class Message {
 public:
  void varint_field(uint32_t field, uint64_t value) {
    varint(uint64_t{field} << 3 | 0);
    varint(value);
  }
  void bytes_field(uint32_t field, std::string_view value) {
    varint(uint64_t{field} << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  void float_field(uint32_t field, float value) {
    varint(uint64_t{field} << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

// A negative id: there is no such token. int32 fields are sign-extended to 64 bits.
uint64_t id_or_none(const std::optional<uint32_t>& id) { return id ? *id : ~uint64_t{0}; }

}  // namespace

std::string serialized_model(const TokenizerSource& source) {
  const size_t count = source.tokens.size();
  if (source.scores.size() != count) {
    throw Error("a SentencePiece vocabulary of " + std::to_string(count) + " tokens has " +
                std::to_string(source.scores.size()) + " scores");
  }
  Message model;
  bool has_bytes = false;
  for (uint32_t id = 0; id < count; ++id) {
    TokenType type = source.types.empty() ? TokenType::normal : source.types[id];
    if (id == source.unk_id && type == TokenType::normal) type = TokenType::unknown;
    has_bytes = has_bytes || type == TokenType::byte;
    std::string text = source.tokens[id];
    if (text.empty()) {  // a gap: a piece needs some name, and no text leads to a control token
      text = "<gap " + std::to_string(id) + ">";
      type = TokenType::control;
    }
    Message piece;
    piece.bytes_field(1, text);
    piece.float_field(2, source.scores[id]);
    piece.varint_field(3, static_cast<uint64_t>(type));
    model.bytes_field(1, piece.bytes());
  }

  Message trainer;
  trainer.varint_field(3, 2);  // model_type: BPE
  trainer.varint_field(4, count);
  trainer.varint_field(35, has_bytes ? 1 : 0);  // byte_fallback
  trainer.varint_field(40, id_or_none(source.unk_id));
  trainer.varint_field(41, id_or_none(source.bos_id));
  trainer.varint_field(42, id_or_none(source.eos_id));
  trainer.varint_field(43, id_or_none(source.pad_id));
  model.bytes_field(2, trainer.bytes());

  Message normalizer;
  normalizer.bytes_field(1, "identity");
  normalizer.varint_field(3, source.add_space_prefix.value_or(true) ? 1 : 0);
  normalizer.varint_field(4, 0);  // remove_extra_whitespaces
  normalizer.varint_field(5, 1);  // escape_whitespaces
  model.bytes_field(3, normalizer.bytes());
  return model.bytes();
}

}  // namespace flexllm::tokenizer
