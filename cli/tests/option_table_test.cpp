// One table: flags, environment, file, help and reference agree, and the command line wins.
#include "cli/option_table.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>

#include "cli/exit_code.h"
#include "cli/nearest.h"

namespace flexllm::cli {
namespace {

struct Options {
  std::string name = "initial";
  std::filesystem::path file;
  bool loud = false;
  std::vector<std::string> origins;
  std::chrono::milliseconds pause{1500};
  std::chrono::milliseconds limit{0};
  uint16_t port = 8080;
  std::optional<uint16_t> other_port = 99;
  uint32_t mode = 0600;
  std::optional<float> share;
  OptionTable table;
  CLI::App app;

  Options() {
    table.group("First");
    table.add("some-name", name, "A name");
    table.add("file", file, "A file");
    table.add("loud", loud, "A switch");
    table.group("Second");
    table.add("origins", origins, "A list");
    table.add("pause", pause, std::chrono::milliseconds(100), "A time");
    table.add("limit", limit, std::chrono::milliseconds(0), "A time; 0: none");
    table.add("port", port, 1, 65535, "A number");
    table.add("other-port", other_port, 0, 65535, "A number, or off");
    table.add_mode("mode", mode, "A mode");
    table.add("share", share, 0, 2, "A fraction");
    table.attach(app);
  }
  void parse(std::vector<std::string> words) {
    std::reverse(words.begin(), words.end());
    app.parse(words);
    table.resolve();
  }
};

class Table : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const auto* name : {"FLEXLLM_SOME_NAME", "FLEXLLM_PORT", "FLEXLLM_LOUD", "FLEXLLM_ORIGINS",
                             "FLEXLLM_CONFIG"}) {
      ::unsetenv(name);
    }
  }
  std::string config(const std::string& text) {
    const auto path = std::filesystem::path(::testing::TempDir()) /
                      ("flexllm-options-" + std::to_string(::getpid()) + ".json");
    std::ofstream(path) << text;
    return path.string();
  }
};

TEST_F(Table, FractionsAreBoundedAndAbsentByDefault) {
  Options none;
  none.parse({});
  EXPECT_FALSE(none.share);
  Options some;
  some.parse({"--share", "0.25"});
  EXPECT_EQ(some.share, 0.25f);
  for (const char* bad : {"", "x", "0.5x", "2.5", "-1", "nan"}) {
    Options options;
    EXPECT_THROW(options.parse({"--share", bad}), Failure) << bad;
  }
}

TEST_F(Table, DefaultsFlagsEnvironmentAndFileInTheirOrder) {
  {
    Options options;
    options.parse({});
    EXPECT_EQ(options.name, "initial");
    EXPECT_EQ(options.port, 8080);
    EXPECT_FALSE(options.table.given("port"));
  }
  const std::string path =
      config(R"({"some_name":"file","port":1,"loud":true,"pause":0.25,"origins":["a","b"]})");
  {
    Options options;
    options.parse({"--config", path});
    EXPECT_EQ(options.name, "file");
    EXPECT_EQ(options.port, 1);
    EXPECT_TRUE(options.loud);
    EXPECT_EQ(options.pause.count(), 250);
    EXPECT_EQ(options.origins, (std::vector<std::string>{"a", "b"}));
  }
  ::setenv("FLEXLLM_SOME_NAME", "environment", 1);
  ::setenv("FLEXLLM_PORT", "2", 1);
  ::setenv("FLEXLLM_LOUD", "false", 1);
  ::setenv("FLEXLLM_CONFIG", path.c_str(), 1);
  {
    Options options;
    options.parse({"--port", "3"});
    EXPECT_EQ(options.name, "environment");
    EXPECT_EQ(options.port, 3);
    EXPECT_FALSE(options.loud);
    EXPECT_TRUE(options.table.given("port"));
  }
}

TEST_F(Table, WhatCanBeOffAndModes) {
  Options none;
  none.parse({"--other-port", "off", "--mode", "0660"});
  EXPECT_FALSE(none.other_port);
  EXPECT_EQ(none.mode, 0660u);
  Options some;
  some.parse({"--other-port", "0", "--mode", "666"});
  EXPECT_EQ(some.other_port, 0);
  EXPECT_EQ(some.mode, 0666u);
  EXPECT_NE(some.table.markdown().find("`mode` | `600` |"), std::string::npos);
  EXPECT_NE(some.table.markdown().find("`other_port` | `99` |"), std::string::npos);
  for (const char* bad : {"", "8", "-1", "1000", "6x"}) {
    Options options;
    EXPECT_THROW(options.parse({"--mode", bad}), Failure) << bad;
  }
}

TEST_F(Table, TimesHaveALeastAndAreNotRoundedToNothing) {
  Options options;
  options.parse({"--pause", "0.1", "--limit", "0.0001"});
  EXPECT_EQ(options.pause.count(), 100);
  EXPECT_EQ(options.limit.count(), 1);
  Options none;
  none.parse({"--limit", "0"});
  EXPECT_EQ(none.limit.count(), 0);
}

TEST_F(Table, AnEmptyVariableIsGivenAndSetsNothing) {
  ::setenv("FLEXLLM_ORIGINS", "", 1);
  ::setenv("FLEXLLM_SOME_NAME", "", 1);
  Options options;
  options.parse({"--origins", ",", "--port", "1"});
  EXPECT_EQ(options.name, "initial");
  EXPECT_TRUE(options.origins.empty());
  EXPECT_TRUE(options.table.given("origins"));
  EXPECT_TRUE(options.table.given("some-name"));
  EXPECT_FALSE(options.table.on_command_line("some-name"));
  EXPECT_TRUE(options.table.on_command_line("port"));
  EXPECT_FALSE(options.table.given("file"));
}

TEST_F(Table, AnOptionTakesOneWord) {
  Options options;
  std::string word;
  options.app.add_option("word", word, "A word");
  options.parse({"--some-name", "x", "left over", "--origins", "a"});
  EXPECT_EQ(options.name, "x");
  EXPECT_EQ(word, "left over");
}

TEST_F(Table, ListsAreRepeatedOrSeparated) {
  Options options;
  options.parse({"--origins", "a,b", "--origins", "c", "--loud"});
  EXPECT_EQ(options.origins, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(options.loud);
}

TEST_F(Table, BadValuesNameTheOptionAndItsSource) {
  auto message = [](std::vector<std::string> words) -> std::string {
    Options options;
    try {
      options.parse(std::move(words));
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code, kUsage);
      return failure.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({"--port", "0"}), "--port must be an integer between 1 and 65535");
  EXPECT_EQ(message({"--port", "1x"}), "--port must be an integer between 1 and 65535");
  EXPECT_EQ(message({"--port", "-1"}), "--port must be an integer between 1 and 65535");
  EXPECT_EQ(message({"--limit", "soon"}), "--limit must be a number of seconds");
  EXPECT_EQ(message({"--limit", "-1"}), "--limit must be a number of seconds");
  for (const char* bad : {"soon", "nan", "0", "0.09"}) {
    EXPECT_EQ(message({"--pause", bad}), "--pause must be a number of seconds, at least 0.1");
  }
  EXPECT_EQ(message({"--other-port", "on"}),
            "--other-port must be an integer between 0 and 65535, or off");
  const std::string unknown = config(R"({"prot":1})");
  EXPECT_EQ(message({"--config", unknown}),
            unknown + ": there is no option \"prot\" (did you mean port?)");
  const std::string bad = config(R"({"port":"many"})");
  EXPECT_EQ(message({"--config", bad}), bad + ": \"port\" must be an integer between 1 and 65535");
  const std::string null = config(R"({"some_name":null})");
  EXPECT_EQ(message({"--config", null}), null + ": \"some_name\" must be a value");
  EXPECT_EQ(message({"--config", "/nonexistent"}), "/nonexistent: cannot be read");
  ::setenv("FLEXLLM_PORT", "99999", 1);
  EXPECT_EQ(message({}), "FLEXLLM_PORT must be an integer between 1 and 65535");
}

TEST_F(Table, MistypedNamesAreRecognised) {
  const std::vector<std::string> names = {"--model", "--max-queue", "--port", "--part"};
  EXPECT_EQ(nearest("--modle", names), "--model");
  EXPECT_EQ(nearest("--max-que", names), "--max-queue");
  EXPECT_EQ(nearest("--pxrt", names), "") << "two are as near";
  EXPECT_EQ(nearest("--frobnicate", names), "");
  EXPECT_EQ(nearest(std::string(1000, 'x'), names), "");
  Options options;
  ::setenv("FLEXLLM_SOME_NMAE", "x", 1);
  ::setenv("FLEXLLM_SOMETHING_ELSE", "x", 1);
  options.parse({});
  const auto doubts = options.table.doubtful_variables();
  ::unsetenv("FLEXLLM_SOME_NMAE");
  ::unsetenv("FLEXLLM_SOMETHING_ELSE");
  EXPECT_EQ(doubts,
            std::vector<std::string>{
                "FLEXLLM_SOME_NMAE is not a variable of this program; FLEXLLM_SOME_NAME is"});
}

TEST_F(Table, HelpAndReferenceHaveEveryOption) {
  Options options;
  const std::string help = options.app.help();
  const std::string reference = options.table.markdown();
  for (const auto* name : {"--some-name", "--file", "--loud", "--origins", "--pause", "--port"}) {
    EXPECT_NE(help.find(name), std::string::npos) << name;
    EXPECT_NE(reference.find(name), std::string::npos) << name;
  }
  EXPECT_NE(
      reference.find("| `--some-name TEXT` | `FLEXLLM_SOME_NAME` | `some_name` | `initial` |"),
      std::string::npos)
      << reference;
}

}  // namespace
}  // namespace flexllm::cli
