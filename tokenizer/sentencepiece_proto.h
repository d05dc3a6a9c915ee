// Writes the protocol buffer of a SentencePiece model, as the sentencepiece library reads it
// (sentencepiece_model.proto), from the parts that a GGUF keeps.
#pragma once

#include <string>

#include "formats/tokenizer_source.h"

namespace flexllm::tokenizer {

// A BPE model, the kind that GGUF calls "llama". Throws Error when scores are missing.
std::string serialized_model(const formats::TokenizerSource& source);

}  // namespace flexllm::tokenizer
