// The text model of production: the tokenizer and the chat template of a checkpoint. Immutable; any
// thread may call any member.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "formats/model_config.h"
#include "formats/tokenizer_source.h"
#include "server/text/text_model.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace flexllm::server {

class ModelText final : public TextModel {
 public:
  // Throws tokenizer::Error when the checkpoint's tokenizer is malformed or unknown. A template
  // that does not compile only means that there are no chats.
  ModelText(const formats::TokenizerSource& source, const formats::GenerationDefaults& defaults);

  uint32_t vocab_size() const override;
  std::vector<uint32_t> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const uint32_t> tokens) const override;
  std::string_view token_bytes(uint32_t token) const override;
  std::string_view token_name(uint32_t token) const override;
  const std::vector<uint32_t>& end_tokens() const override { return end_tokens_; }
  const std::string& chat_problem() const override { return chat_problem_; }
  tl::expected<ChatPrompt, std::string> chat_prompt(const Chat& chat,
                                                    bool add_generation_prompt) const override;
  ToolFormat tool_format() const override { return tool_format_; }

 private:
  std::string name_of(std::optional<uint32_t> token) const;

  tokenizer::Tokenizer tokenizer_;
  std::optional<tokenizer::ChatTemplate> template_;
  std::string chat_problem_;
  std::vector<uint32_t> end_tokens_;
  ToolFormat tool_format_ = ToolFormat::none;
  std::optional<uint32_t> call_token_;  // a control token that is part of the text of calls
};

}  // namespace flexllm::server
