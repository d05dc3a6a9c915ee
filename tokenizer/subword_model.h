// What turns a stretch of text without special tokens into ids. Immutable: any thread may call.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace flexllm::tokenizer {

class SubwordModel {
 public:
  virtual ~SubwordModel() = default;

  // Appends the ids of `text`, which is valid UTF-8; `at_text_start` says that no token stands
  // before it.
  virtual void encode(std::string_view text, bool at_text_start,
                      std::vector<uint32_t>& ids) const = 0;
};

}  // namespace flexllm::tokenizer
