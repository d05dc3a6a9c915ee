// Private to this room: the tokenizer keys of a GGUF file.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/gguf.h"
#include "formats/tokenizer_source.h"

namespace flexllm::formats {

// `vocab` is the number of rows of the embedding; every id must be below it.
TokenizerSource read_gguf_tokenizer(const GgufFile& file, uint32_t vocab);

// The ids that end a generation: end of text, of turn, of message.
std::vector<uint32_t> read_gguf_eos_ids(const GgufFile& file, uint32_t vocab);

}  // namespace flexllm::formats
