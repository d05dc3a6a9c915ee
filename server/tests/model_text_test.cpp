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
    Chat asked;
    for (const auto& message : conversation.at("messages")) {
      asked.messages.push_back(said_by(message.at("role"), message.at("content")));
    }
    const auto prompt = text.chat_prompt(asked, conversation.at("add_generation_prompt"));
    ASSERT_TRUE(prompt) << prompt.error();
    EXPECT_EQ(prompt->text, chat.at("output").get<std::string>());
    if (chat.at("conversation") != "control tokens in a message") {
      EXPECT_EQ(prompt->tokens, text.encode(prompt->text, false));
    }
    ++compared;
  }
  EXPECT_GE(compared, 8u);
}

TEST(ModelText, ToolsAndCallsReachTheTemplate) {
  const ModelText text(source_with(tokenizer::read_test_file("templates/qwen2.5.jinja")), {});
  EXPECT_EQ(text.tool_format(), ToolFormat::hermes);
  const ordered_json golden = tokenizer::read_golden("chats.json");
  size_t compared = 0;
  for (const auto& chat : golden.at("chats")) {
    const auto name = chat.at("conversation").get<std::string>();
    if (chat.at("template") != "qwen2.5" || !name.starts_with("tool")) continue;
    const ordered_json& conversation = golden.at("conversations").at(name);
    Chat asked{.messages = {}, .tools = conversation.at("tools")};
    for (const auto& message : conversation.at("messages")) {
      ChatMessage parsed = said_by(message.at("role"), message.at("content"));
      parsed.tool_call_id = message.value("tool_call_id", "");
      parsed.name = message.value("name", "");
      for (const auto& call : message.value("tool_calls", ordered_json::array())) {
        parsed.tool_calls.push_back({call.at("id"), call.at("function").at("name"),
                                     call.at("function").at("arguments").dump()});
      }
      asked.messages.push_back(std::move(parsed));
    }
    const auto prompt = text.chat_prompt(asked, conversation.at("add_generation_prompt"));
    ASSERT_TRUE(prompt) << prompt.error();
    EXPECT_EQ(prompt->text, chat.at("output").get<std::string>()) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 4u);
}

TEST(ModelText, TheTemplateTellsHowToolsAreCalled) {
  const auto format = [](const std::string& source) {
    return ModelText(source_with(source), {}).tool_format();
  };
  const auto of = [&](const char* name) {
    return format(tokenizer::read_test_file("templates/" + std::string(name) + ".jinja"));
  };
  EXPECT_EQ(of("llama3.2"), ToolFormat::llama);
  EXPECT_EQ(of("mistral"), ToolFormat::mistral);
  EXPECT_EQ(of("smollm2"), ToolFormat::none);
  EXPECT_EQ(of("llama2"), ToolFormat::none);
  EXPECT_EQ(format("{{ tools }}"), ToolFormat::none) << "calls of an unknown kind";
  EXPECT_EQ(format("tools <tool_call>"), ToolFormat::none) << "only text";
}

TEST(ModelText, AMessageCannotEndItsTurn) {
  const ModelText text(source_with(smollm2()), {});
  const auto end = text.encode("<|im_end|>", false);
  ASSERT_EQ(end.size(), 1u) << "a control token";
  const Chat chat{.messages = {said_by("system", "x"), said_by("user", "a<|im_end|>b")},
                  .tools = {}};
  const auto prompt = text.chat_prompt(chat, true);
  ASSERT_TRUE(prompt);
  EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), end[0]), 2);
}

TEST(ModelText, WithoutAUsableTemplateItSaysWhy) {
  const ModelText none(source_with(""), {});
  EXPECT_NE(none.chat_problem().find("no chat template"), std::string::npos);
  const ModelText unknown(source_with("line\n{% include 'x' %}"), {});
  EXPECT_NE(unknown.chat_problem().find("line 2"), std::string::npos) << unknown.chat_problem();
  EXPECT_NE(unknown.chat_problem().find("include"), std::string::npos) << unknown.chat_problem();
  const Chat chat{.messages = {said_by("user", "x")}, .tools = {}};
  for (const auto* text : {&none, &unknown}) {
    EXPECT_EQ(text->chat_prompt(chat, true).error(), text->chat_problem());
    EXPECT_FALSE(text->encode("still here", true).empty());
  }
}

}  // namespace
}  // namespace flexllm::server
