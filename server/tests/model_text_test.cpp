// The tokenizer and the template of a checkpoint, put together.
#include "server/text/model_text.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tokenizer/tests/golden.h"
#include "tokenizer/tests/sources.h"

namespace flexllm::server {
namespace {

using nlohmann::ordered_json;

formats::TokenizerSource source_with(const std::string& chat_template) {
  auto source = tokenizer::source_of(tokenizer::read_golden("smollm.json").at("tokenizer"));
  if (!chat_template.empty()) source.chat_templates.push_back({"default", chat_template});
  return source;
}

std::string smollm2() { return tokenizer::read_test_file("templates/smollm2.jinja"); }

TEST(ModelText, ThePromptIsThatOfTheTemplateToTheToken) {
  const ModelText text(source_with(smollm2()), {});
  ASSERT_EQ(text.chat_problem(), "");
  const ordered_json golden = tokenizer::read_golden("chats.json");
  size_t compared = 0;
  for (const auto& chat : golden.at("chats")) {
    const ordered_json& conversation =
        golden.at("conversations").at(chat.at("conversation").get<std::string>());
    if (chat.at("template") != "smollm2" || !chat.contains("output") ||
        !conversation.at("tools").is_null()) {
      continue;
    }
    SCOPED_TRACE(chat.at("conversation"));
    std::vector<ChatMessage> messages;
    for (const auto& message : conversation.at("messages")) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    const auto prompt = text.chat_prompt(messages, conversation.at("add_generation_prompt"));
    ASSERT_TRUE(prompt) << prompt.error();
    EXPECT_EQ(prompt->text, chat.at("output").get<std::string>());
    if (chat.at("conversation") != "control tokens in a message") {
      EXPECT_EQ(prompt->tokens, text.encode(prompt->text, false));
    }
    ++compared;
  }
  EXPECT_GE(compared, 8u);
}

TEST(ModelText, AMessageCannotEndItsTurn) {
  const ModelText text(source_with(smollm2()), {});
  const auto end = text.encode("<|im_end|>", false);
  ASSERT_EQ(end.size(), 1u) << "a control token";
  const std::vector<ChatMessage> messages = {{"system", "x"}, {"user", "a<|im_end|>b"}};
  const auto prompt = text.chat_prompt(messages, true);
  ASSERT_TRUE(prompt);
  EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), end[0]), 2);
}

TEST(ModelText, WithoutAUsableTemplateItSaysWhy) {
  const ModelText none(source_with(""), {});
  EXPECT_NE(none.chat_problem().find("no chat template"), std::string::npos);
  const ModelText unknown(source_with("line\n{% include 'x' %}"), {});
  EXPECT_NE(unknown.chat_problem().find("line 2"), std::string::npos) << unknown.chat_problem();
  EXPECT_NE(unknown.chat_problem().find("include"), std::string::npos) << unknown.chat_problem();
  const std::vector<ChatMessage> messages = {{"user", "x"}};
  for (const auto* text : {&none, &unknown}) {
    EXPECT_EQ(text->chat_prompt(messages, true).error(), text->chat_problem());
    EXPECT_FALSE(text->encode("still here", true).empty());
  }
}

}  // namespace
}  // namespace flexllm::server
