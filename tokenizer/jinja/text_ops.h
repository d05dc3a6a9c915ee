// Python's methods of str on Text: what comes out keeps the origin of what went in. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/text.h"

namespace flexllm::tokenizer::jinja {

enum class Side { left, right, both };

// Without the characters in `characters` at its ends, or without white space.
Text strip(const Text& text, std::optional<std::string_view> characters, Side side);

Text upper(const Text& text);
Text lower(const Text& text);
Text capitalize(const Text& text);
Text title(const Text& text);           // str.title(): words are runs of letters
Text title_of_words(const Text& text);  // the filter: words end at spaces and opening brackets

// At most `count` replacements from the left; all of them if it is negative. An empty `what` stands
// before every character and at the end.
Text replace(const Text& text, std::string_view what, const Text& with, int64_t count);

// str.split(separator, limit); without a separator words are cut at white space.
std::vector<Text> split(const Text& text, std::optional<std::string_view> separator, int64_t limit);
std::vector<Text> split_from_right(const Text& text, std::string_view separator, int64_t limit);
std::vector<Text> split_lines(const Text& text);

// Characters, not bytes.
size_t length(const Text& text);

// Positions of all characters, and the end.
std::vector<size_t> character_starts(const Text& text);

}  // namespace flexllm::tokenizer::jinja
