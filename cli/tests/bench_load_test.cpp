// What `flexllm bench` sends: lengths, arrivals, prompts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "cli/bench/lengths.h"
#include "cli/bench/workload.h"

namespace flexllm::cli::bench {
namespace {

using nlohmann::json;

Lengths lengths(std::string_view text) { return Lengths::parse(text).value(); }

std::vector<double> samples(std::string_view text, size_t count = 20000) {
  const Lengths distribution = lengths(text);
  Random random(7, 0);
  std::vector<double> out(count);
  for (double& value : out) value = distribution.sample(random);
  std::sort(out.begin(), out.end());
  return out;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

TEST(Random, IsTheSameEverywhere) {
  // mt19937_64 seeded with SplitMix64(SplitMix64(1) + 2), written anew in Python.
  Random random(1, 2);
  EXPECT_EQ(random.uniform(), 0.7676413283615545);
  EXPECT_EQ(random.uniform(), 0.4617645625991531);
  EXPECT_NE(Random(1, 3).uniform(), Random(1, 2).uniform());
  EXPECT_NE(Random(2, 2).uniform(), Random(1, 2).uniform());
}

TEST(Lengths, FixedIsFixed) {
  const auto values = samples("37", 100);
  EXPECT_EQ(values.front(), 37);
  EXPECT_EQ(values.back(), 37);
}

TEST(Lengths, UniformReachesBothEndsEquallyOften) {
  const auto values = samples("uniform:10-14");
  for (int length = 10; length <= 14; ++length) {
    const auto count = std::count(values.begin(), values.end(), length);
    EXPECT_NEAR(static_cast<double>(count), 4000, 5 * std::sqrt(20000 * 0.2 * 0.8)) << length;
  }
  EXPECT_EQ(values.front(), 10);
  EXPECT_EQ(values.back(), 14);
  EXPECT_EQ(samples("uniform:5-5", 10).back(), 5);
}

TEST(Lengths, LognormalHasItsMedianAndSpread) {
  const auto values = samples("lognormal:400,0.5");
  EXPECT_NEAR(values[10000], 400, 400 * 0.02);
  // One and two standard deviations of the logarithm, and the mean exp(mu + sigma^2 / 2).
  EXPECT_NEAR(values[static_cast<size_t>(20000 * 0.8413)], 400 * std::exp(0.5), 400 * 0.05);
  EXPECT_NEAR(values[static_cast<size_t>(20000 * 0.0228)], 400 * std::exp(-1.0), 400 * 0.02);
  EXPECT_NEAR(mean(values), 400 * std::exp(0.125), 400 * 0.02);
  EXPECT_EQ(samples("lognormal:8,0", 100).front(), 8);
  EXPECT_GE(samples("lognormal:1,5").front(), 1);
  EXPECT_LE(samples("lognormal:1000000,5").back(), kMostTokens);
}

TEST(Lengths, RefusesWhatIsNone) {
  for (const auto* bad : {"",
                          "0",
                          "-1",
                          "1.5",
                          "x",
                          "1048577",
                          "uniform:",
                          "uniform:5",
                          "uniform:5-",
                          "uniform:9-5",
                          "uniform:0-5",
                          "lognormal:",
                          "lognormal:5",
                          "lognormal:5,",
                          "lognormal:5,x",
                          "lognormal:5,-1",
                          "lognormal:5,nan",
                          "lognormal:5,6",
                          "normal:5,1",
                          "12 ",
                          " 12",
                          "99999999999999999999"}) {
    EXPECT_FALSE(Lengths::parse(bad)) << bad;
  }
}

TEST(Workload, ArrivalsAreAPoissonProcess) {
  Random random = Workload({}).arrivals(false);
  std::vector<double> gaps(20000);
  for (double& gap : gaps) gap = random.exponential(4);
  std::sort(gaps.begin(), gaps.end());
  EXPECT_NEAR(mean(gaps), 0.25, 0.25 * 0.03);
  EXPECT_NEAR(gaps[10000], std::log(2) / 4, 0.25 * 0.03);
  EXPECT_NEAR(gaps[18000], std::log(10) / 4, 0.25 * 0.1);
  EXPECT_GE(gaps.front(), 0);
}

WorkloadOptions options() {
  WorkloadOptions out;
  out.model = "m";
  out.prompt_tokens = lengths("uniform:3-9");
  out.output_tokens = lengths("uniform:1-50");
  return out;
}

TEST(Workload, TheSeedDecidesEachRequest) {
  const Workload first(options()), second(options());
  WorkloadOptions other = options();
  other.seed = 2;
  const Workload third(std::move(other));
  std::set<std::string> bodies;
  for (uint64_t i = 0; i < 50; ++i) {
    // In another order it is the same.
    EXPECT_EQ(first.request(i, false).body, second.request(i, false).body);
    EXPECT_EQ(first.request(49 - i, false).body, second.request(49 - i, false).body);
    EXPECT_NE(first.request(i, false).body, third.request(i, false).body);
    EXPECT_NE(first.request(i, false).body, first.request(i, true).body);
    bodies.insert(first.request(i, false).body);
  }
  EXPECT_EQ(bodies.size(), 50);
}

TEST(Workload, ARequestSaysWhatWasPlanned) {
  const PlannedRequest planned = Workload(options()).request(4, false);
  const json body = json::parse(planned.body);
  EXPECT_EQ(body["model"], "m");
  EXPECT_EQ(body["max_tokens"], planned.output_tokens);
  EXPECT_EQ(body["stream"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_EQ(body["ignore_eos"], true);
  const std::string prompt = body["messages"][0]["content"];
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), ' ') + 1, planned.prompt_tokens);
  EXPECT_FALSE(body.contains("prompt"));

  WorkloadOptions completions = options();
  completions.endpoint = Endpoint::completions;
  completions.fields = parse_fields(R"({"ignore_eos": null, "top_k": 5})").value();
  const Workload workload(std::move(completions));
  EXPECT_STREQ(workload.path(), "/v1/completions");
  const json other = json::parse(workload.request(4, false).body);
  EXPECT_EQ(other["prompt"], prompt);
  EXPECT_FALSE(other.contains("messages"));
  EXPECT_FALSE(other.contains("ignore_eos"));
  EXPECT_EQ(other["top_k"], 5);
}

TEST(Workload, FieldsLeaveToTheLoadWhatIsItsOwn) {
  EXPECT_EQ(parse_fields("").value(), json::object());
  for (const auto* bad : {"x", "[]", "1", R"({"stream": false})", R"({"n": 2})",
                          R"({"messages": []})", R"({"max_tokens": null})"}) {
    EXPECT_FALSE(parse_fields(bad)) << bad;
  }
}

class Prompts : public ::testing::Test {
 protected:
  tl::expected<std::vector<json>, std::string> read(const std::string& text,
                                                    Endpoint endpoint = Endpoint::chat) {
    const auto path = std::filesystem::path(::testing::TempDir()) / "bench_prompts.jsonl";
    std::ofstream(path) << text;
    auto prompts = read_prompts(path, endpoint);
    std::filesystem::remove(path);
    return prompts;
  }
};

TEST_F(Prompts, OfAFileComeInOrderAgainAndAgain) {
  auto prompts = read(
      "\"one\"\n\n{\"prompt\": \"two\", \"max_tokens\": 3}\r\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"three\"}]}");
  ASSERT_TRUE(prompts) << prompts.error();
  WorkloadOptions with = options();
  with.prompts = std::move(*prompts);
  const Workload workload(std::move(with));
  for (const uint64_t number : {0, 1, 2, 3, 4}) {
    const PlannedRequest planned = workload.request(number, false);
    const json body = json::parse(planned.body);
    EXPECT_EQ(body["messages"][0]["content"],
              std::vector<std::string>({"one", "two", "three"})[number % 3]);
    if (number % 3 == 1) {
      EXPECT_EQ(body["max_tokens"], 3);
      EXPECT_EQ(planned.output_tokens, 3);
    }
  }
}

TEST_F(Prompts, RefusesByTheLine) {
  for (const auto* bad :
       {"\"x\"\nx", "\"x\"\n1", "\"x\"\n{}", "\"x\"\n{\"prompt\": 1}", "\"x\"\n{\"messages\": []}",
        "\"x\"\n{\"prompt\": \"x\", \"max_tokens\": 0}", "\"x\"\n{\"prompt\": \"x\", \"n\": 2}",
        "\"x\"\n{\"prompt\": \"x\", \"messages\": [1]}", "\"x\"\n\"\xff\""}) {
    const auto prompts = read(bad);
    ASSERT_FALSE(prompts) << bad;
    EXPECT_NE(prompts.error().find("line 2: "), std::string::npos) << prompts.error();
  }
  EXPECT_FALSE(read(""));
  EXPECT_FALSE(read("{\"messages\": [{\"role\": \"user\"}]}", Endpoint::completions));
  EXPECT_FALSE(read_prompts("/no/such/file", Endpoint::chat));
  EXPECT_FALSE(read_prompts(::testing::TempDir(), Endpoint::chat));
}

}  // namespace
}  // namespace flexllm::cli::bench
