// SentencePiece models, run by the sentencepiece library: from the bytes of a tokenizer.model, or
// from the tokens, scores and types that a GGUF keeps of one. Immutable: any thread may encode.
#pragma once

#include <memory>
#include <string_view>

#include "formats/tokenizer_source.h"
#include "tokenizer/subword_model.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace flexllm::tokenizer {

class SentencePieceModel final : public SubwordModel {
 public:
  // Throws Error when the material does not make a model.
  explicit SentencePieceModel(const formats::TokenizerSource& source);
  ~SentencePieceModel() override;

  void encode(std::string_view text, bool at_text_start, std::vector<uint32_t>& ids) const override;

  // Writes what the model knows and `source` does not say: tokens, types, BOS, EOS and unknown.
  void complete(formats::TokenizerSource& source) const;

  // Whether it puts a space before a text, which decoding has to drop.
  bool adds_space() const;

  // Whether it finds this text, a token of its own that is not a control token, by itself.
  bool finds(std::string_view token) const;

 private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace flexllm::tokenizer
