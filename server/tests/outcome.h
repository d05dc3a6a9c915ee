// All that one request answered, for tests.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "server/scheduling/generation.h"

namespace flexllm::server::testing {

struct Outcome {
  std::vector<std::string> texts;  // by choice
  std::vector<std::vector<TokenRecord>> tokens;
  std::vector<std::optional<FinishReason>> finish;
  std::optional<Usage> usage;
  std::optional<ApiError> error;
  int deltas = 0;

  const std::string& text() const { return texts.at(0); }
  bool ended() const { return usage || error; }

  void add(Event& event) {
    if (auto* delta = std::get_if<Delta>(&event)) {
      ++deltas;
      if (texts.size() <= delta->choice) {
        texts.resize(delta->choice + 1);
        tokens.resize(delta->choice + 1);
        finish.resize(delta->choice + 1);
      }
      EXPECT_FALSE(finish[delta->choice]) << "a delta after the last";
      texts[delta->choice] += delta->text;
      auto& records = tokens[delta->choice];
      records.insert(records.end(), delta->tokens.begin(), delta->tokens.end());
      finish[delta->choice] = delta->finish;
    } else if (auto* finished = std::get_if<Finished>(&event)) {
      usage = finished->usage;
    } else {
      error = std::get<ApiError>(event);
    }
  }
};

}  // namespace flexllm::server::testing
