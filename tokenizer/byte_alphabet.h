// The printable alphabet in which byte-level vocabularies are stored: every byte is one character,
// most of Latin-1's printable ones standing for themselves and the rest moved to U+0100 and up
// (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, released encoder).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace flexllm::tokenizer {

// The bytes that `printable` spells; nothing if a character of it is not in the alphabet.
std::optional<std::string> bytes_of_printable(std::string_view printable);

}  // namespace flexllm::tokenizer
