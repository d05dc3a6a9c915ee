// Random texts of a grammar, token by token through its masks.
#pragma once

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "server/grammar/grammar.h"
#include "server/text/text_model.h"

namespace flexllm::server::testing {

// A whole text, or nothing if it has not come to an end after `max_tokens`. It goes where it likes
// for a while and then heads for the end.
inline std::optional<std::string> random_text(std::shared_ptr<const grammar::Grammar> grammar,
                                              const TextModel& model, std::mt19937& random,
                                              uint32_t max_tokens = 20000) {
  grammar::Matcher matcher(std::move(grammar));
  const uint32_t wander = 5 + static_cast<uint32_t>(random() % 60);
  std::string text;
  for (uint32_t step = 0; step < max_tokens; ++step) {
    if (matcher.finished() || (matcher.may_end() && random() % 3 == 0)) return text;
    const auto allowed = matcher.allowed();
    std::vector<uint32_t> tokens;
    for (uint32_t token = 0; token < model.vocab_size(); ++token) {
      if (allowed->contains(token)) tokens.push_back(token);
    }
    if (tokens.empty()) return matcher.may_end() ? std::optional(text) : std::nullopt;
    uint32_t chosen = tokens[random() % tokens.size()];
    // Most tokens are characters of strings: without a push nothing would ever end.
    const auto there = [&](char c) {
      return std::find(tokens.begin(), tokens.end(), static_cast<uint32_t>(c)) != tokens.end();
    };
    if (random() % 4 == 0 || (step > wander && random() % 4 != 0)) {
      const bool in_string = there('}') && there('{');
      for (const char c : std::string_view(in_string       ? "\""
                                           : step > wander ? "}]\"0n:"
                                                           : "\"}],:")) {
        if (!there(c)) continue;
        chosen = static_cast<uint32_t>(c);
        break;
      }
    }
    if (!matcher.accept(model.token_bytes(chosen))) return std::nullopt;
    text += model.token_bytes(chosen);
  }
  return std::nullopt;
}

}  // namespace flexllm::server::testing
