#include "tokenizer/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <cmath>
#include <limits>
#include <string>

#include "tokenizer/sentencepiece_proto.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace flexllm::tokenizer {
namespace {

using formats::TokenizerSource;
using formats::TokenType;

void require(const sentencepiece::util::Status& status, const char* doing) {
  if (!status.ok()) throw Error(std::string("sentencepiece: ") + doing + ": " + status.ToString());
}

TokenType type_of(const sentencepiece::SentencePieceProcessor& processor, int id) {
  if (processor.IsControl(id)) return TokenType::control;
  if (processor.IsUnknown(id)) return TokenType::unknown;
  if (processor.IsByte(id)) return TokenType::byte;
  if (processor.IsUnused(id)) return TokenType::unused;
  return TokenType::normal;
}

void set_if_absent(std::optional<uint32_t>& value, int id) {
  if (!value && id >= 0) value = static_cast<uint32_t>(id);
}

}  // namespace

SentencePieceModel::SentencePieceModel(const TokenizerSource& source)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  require(processor_->LoadFromSerializedProto(source.sentencepiece_model.empty()
                                                  ? serialized_model(source)
                                                  : source.sentencepiece_model),
          "the model does not load");
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    if (!std::isfinite(processor_->GetScore(id))) {
      throw Error("sentencepiece: the score of token " + std::to_string(id) + " is not finite");
    }
  }
}

SentencePieceModel::~SentencePieceModel() = default;

void SentencePieceModel::encode(std::string_view text, bool, std::vector<uint32_t>& ids) const {
  std::vector<int> result;
  require(processor_->Encode(text, &result), "encoding failed");
  ids.insert(ids.end(), result.begin(), result.end());
}

void SentencePieceModel::complete(TokenizerSource& source) const {
  if (source.tokens.empty()) {
    for (int id = 0; id < processor_->GetPieceSize(); ++id) {
      source.tokens.push_back(processor_->IdToPiece(id));
      source.types.push_back(type_of(*processor_, id));
    }
  }
  set_if_absent(source.bos_id, processor_->bos_id());
  set_if_absent(source.eos_id, processor_->eos_id());
  set_if_absent(source.unk_id, processor_->unk_id());
}

bool SentencePieceModel::adds_space() const {
  std::vector<std::string> pieces;
  require(processor_->Encode("a", &pieces), "encoding failed");
  return !pieces.empty() && pieces.front().starts_with(kMetaspace);
}

bool SentencePieceModel::finds(std::string_view token) const {
  const int id = processor_->PieceToId(token);
  return !processor_->IsUnknown(id) && !processor_->IsControl(id);
}

}  // namespace flexllm::tokenizer
