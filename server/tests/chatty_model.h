// What the fake card says with the fake tokenizer, for tests.
#pragma once

#include "server/tests/fake_backend.h"
#include "server/tests/fake_text.h"

namespace flexllm::server::testing {

// Printable text with words, split characters and, now and then, an end.
inline FakeModel chatty_model() {
  FakeModel model;
  model.other_bias = -1000;
  for (uint32_t c = 'a'; c <= 'z'; ++c) model.bias[c] = 0;
  model.bias[' '] = 1;
  for (uint32_t word = 0; word < 10; ++word) model.bias[FakeText::kFirstWord + word] = 0.5f;
  model.bias[FakeText::kEnd] = -0.5f;
  return model;
}

}  // namespace flexllm::server::testing
