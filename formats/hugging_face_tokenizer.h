// Private to this room: the tokenizer files of a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>

#include "formats/json_text.h"
#include "formats/tokenizer_source.h"

namespace flexllm::formats {

// `config` is config.json, whose ids stand in where the tokenizer's files name no token; `vocab` is
// the number of rows of the embedding, and every id must be below it.
TokenizerSource read_hugging_face_tokenizer(const std::filesystem::path& folder,
                                            const JsonObject& config, uint32_t vocab);

}  // namespace flexllm::formats
