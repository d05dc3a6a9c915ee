// Chat templates and Jinja expressions against what Python's jinja2 made of them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "golden.h"
#include "tokenizer/chat_template.h"

namespace flexllm::tokenizer {
namespace {

using nlohmann::ordered_json;

// Fri 26 Jul 2024, 09:05:07: the time of golden_templates.py.
std::tm golden_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 9;
  time.tm_min = 5;
  time.tm_sec = 7;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

// Nothing when it fails, at compile time or later.
std::optional<std::string> rendered(const std::string& source, const ChatInput& input,
                                    std::string& error) {
  try {
    return ChatTemplate::compile(source).render(input).text;
  } catch (const TemplateError& failure) {
    error = failure.what();
    return std::nullopt;
  }
}

void expect_golden(const ordered_json& golden, const std::string& source, const ChatInput& input) {
  std::string error;
  const auto output = rendered(source, input, error);
  if (golden.contains("output")) {
    ASSERT_TRUE(output.has_value()) << error;
    EXPECT_EQ(*output, golden.at("output").get<std::string>());
  } else {
    EXPECT_FALSE(output.has_value()) << "Python fails, we give: " << *output;
  }
}

TEST(TemplateGolden, ChatsOfSixFamilies) {
  const ordered_json golden = read_golden("chats.json");
  size_t count = 0;
  for (const auto& chat : golden.at("chats")) {
    const auto family = chat.at("template").get<std::string>();
    const auto name = chat.at("conversation").get<std::string>();
    SCOPED_TRACE(family + ": " + name);
    const ordered_json& conversation = golden.at("conversations").at(name);
    ChatInput input;
    input.messages = &conversation.at("messages");
    if (!conversation.at("tools").is_null()) input.tools = &conversation.at("tools");
    input.extra = &conversation.at("extra");
    input.add_generation_prompt = conversation.at("add_generation_prompt").get<bool>();
    input.bos_token = "<s>";
    input.eos_token = "</s>";
    input.now = golden_time();
    expect_golden(chat, read_test_file("templates/" + family + ".jinja"), input);
    ++count;
  }
  EXPECT_EQ(count, 6 * golden.at("conversations").size());
}

TEST(TemplateGolden, ExpressionsAndBlocks) {
  const ordered_json golden = read_golden("jinja.json");
  for (const auto& test_case : golden.at("cases")) {
    const auto source = test_case.at("source").get<std::string>();
    SCOPED_TRACE(source);
    ChatInput input;
    input.extra = &golden.at("context");
    input.now = golden_time();
    expect_golden(test_case, source, input);
  }
}

}  // namespace
}  // namespace flexllm::tokenizer
