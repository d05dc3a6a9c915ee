// Private to this room: PackedModelInfo as metadata and bytes of the packed file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/packed_model.h"

namespace flexllm::formats {

// Metadata strings: format, contract_version, config, generation, scheme, source, source_sha256,
// rotations_sha256.
std::map<std::string, std::string> info_to_metadata(const PackedModelInfo& info);
// All but the tokenizer. Throws Error.
PackedModelInfo info_from_metadata(const std::filesystem::path& file,
                                   const std::map<std::string, std::string>& metadata);

// CBOR, since texts of tokens need not be UTF-8.
std::vector<std::byte> tokenizer_to_bytes(const TokenizerSource& tokenizer);
TokenizerSource tokenizer_from_bytes(const std::filesystem::path& file,
                                     std::span<const std::byte> bytes);

}  // namespace flexllm::formats
