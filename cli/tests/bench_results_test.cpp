// What `flexllm bench` makes of answers: reading streams, percentiles, goodput.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench/answer_reader.h"
#include "cli/bench/report.h"
#include "cli/bench/statistics.h"

namespace flexllm::cli::bench {
namespace {

std::string chunk(const std::string& delta, const std::string& more = "") {
  return "data: {\"choices\": [{\"index\": 0, \"delta\": " + delta + ", \"finish_reason\": null}]" +
         more + "}\n\n";
}

// The outcome of a body that comes in these pieces, at 1 s, 2 s, ..., and then ends.
Outcome outcome_of(const std::vector<std::string>& pieces, unsigned status = 200,
                   const char* type = "text/event-stream; charset=utf-8") {
  Outcome outcome;
  AnswerReader reader(outcome);
  reader.head(status, type);
  double time = 0;
  for (const auto& piece : pieces) {
    if (!reader.take(piece, ++time)) break;
  }
  reader.finish(time + 1);
  return outcome;
}

TEST(AnswerReader, NotesWhenTextCame) {
  const Outcome outcome =
      outcome_of({chunk(R"({"role": "assistant", "content": ""})"), chunk(R"({"content": "a"})"),
                  ": a comment\n\n", chunk(R"({"content": "b"})") + chunk(R"({"content": "c"})"),
                  chunk("{}") + "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 7, "
                                "\"completion_tokens\": 5}}\n\ndata: [DONE]\n\n"});
  EXPECT_EQ(outcome.end, Outcome::End::done) << outcome.message;
  EXPECT_EQ(outcome.chunks, std::vector<double>({2, 4, 4}));
  EXPECT_EQ(outcome.ended, 5);
  EXPECT_TRUE(outcome.usage);
  EXPECT_EQ(outcome.prompt_tokens, 7);
  EXPECT_EQ(outcome.output_tokens, 5);
}

TEST(AnswerReader, CountsChunksWithoutUsage) {
  const Outcome outcome =
      outcome_of({"data: {\"choices\": [{\"text\": \"a\"}], \"usage\": null}\n\n",
                  chunk(R"({"reasoning_content": "b"})"), chunk(R"({"tool_calls": [{}]})"),
                  "data: [DONE]\n\n"});
  EXPECT_EQ(outcome.end, Outcome::End::done) << outcome.message;
  EXPECT_FALSE(outcome.usage);
  EXPECT_EQ(outcome.output_tokens, 3);
}

TEST(AnswerReader, TellsFailuresApart) {
  const std::string text = chunk(R"({"content": "a"})");
  const auto failed = [](const Outcome& outcome) {
    EXPECT_EQ(outcome.end, Outcome::End::failed);
    return outcome.kind;
  };
  EXPECT_EQ(failed(outcome_of({text})), "cut off");
  EXPECT_EQ(failed(outcome_of({text, "data: [DONE]"})), "cut off");  // no blank line: no event
  EXPECT_EQ(failed(outcome_of({})), "cut off");
  EXPECT_EQ(failed(outcome_of({"data: [DONE]\n\n"})), "no text");
  EXPECT_EQ(failed(outcome_of({text, "data: {\"choices\n\n", "data: [DONE]\n\n"})), "malformed");
  EXPECT_EQ(failed(outcome_of({"data: 5\n\n"})), "malformed");
  EXPECT_EQ(failed(outcome_of({"data: {\"choices\": 5}\n\n"})), "malformed");
  EXPECT_EQ(failed(outcome_of({"{\"choices\": []}"}, 200, "application/json")), "malformed");
  EXPECT_EQ(failed(outcome_of({std::string(17 << 20, 'x')})), "malformed");
  const Outcome told = outcome_of(
      {text, "data: {\"error\": {\"type\": \"server_error\", \"message\": \"lost\\n\"}}\n\n"});
  EXPECT_EQ(failed(told), "error in the stream server_error");
  EXPECT_EQ(told.message, "lost?");
  EXPECT_EQ(failed(outcome_of({"data: {\"error\": \"lost\"}\n\n"})), "error in the stream");
  const Outcome refused = outcome_of(
      {"{\"error\": {\"type\": \"rate_limit_error\", \"message\": \"full\"}}"}, 429, "text/plain");
  EXPECT_EQ(failed(refused), "http 429 rate_limit_error");
  EXPECT_EQ(refused.message, "full");
  EXPECT_EQ(failed(outcome_of({"<html>"}, 502, "text/html")), "http 502");
  EXPECT_EQ(failed(outcome_of({"{\"error\": 5}"}, 500, "")), "http 500");
}

TEST(AnswerReader, ForeignShapesDoNotMatter) {
  const Outcome outcome = outcome_of(
      {"data: {}\n\n", "data: {\"choices\": [1, null, {\"delta\": 5}, {\"text\": 5}]}\n\n",
       "data: {\"usage\": {\"completion_tokens\": -1}, \"error\": null}\n\n",
       chunk(R"({"content": null})"), chunk(R"({"content": "a"})") + "data: [DONE]\n\n"});
  EXPECT_EQ(outcome.end, Outcome::End::done) << outcome.message;
  EXPECT_EQ(outcome.chunks.size(), 1);
}

TEST(Summary, PercentilesAreNumPys) {
  // numpy.percentile([0, 1, ..., 9] squared, [50, 90, 99])
  std::vector<double> values;
  for (int i = 9; i >= 0; --i) values.push_back(i * i);
  const Summary all = summary(values);
  EXPECT_EQ(all.count, 10);
  EXPECT_DOUBLE_EQ(all.mean, 28.5);
  EXPECT_DOUBLE_EQ(all.p50, 20.5);
  EXPECT_DOUBLE_EQ(all.p90, 65.7);
  EXPECT_DOUBLE_EQ(all.p99, 79.47);
  EXPECT_DOUBLE_EQ(all.max, 81);
  EXPECT_EQ(summary({}).count, 0);
  EXPECT_EQ(summary({4}).p99, 4);
}

Outcome answer(double due, std::vector<double> chunks, uint32_t tokens) {
  Outcome out;
  out.end = Outcome::End::done;
  out.due = out.sent = due;
  out.ended = chunks.back() + 0.5;
  out.chunks = std::move(chunks);
  out.output_tokens = tokens;
  out.prompt_tokens = 10;
  out.asked_tokens = 8;
  out.usage = true;
  return out;
}

Outcome failure(const char* kind, double ended) {
  Outcome out;
  out.end = Outcome::End::failed;
  out.kind = kind;
  out.message = "example";
  out.ended = ended;
  return out;
}

TEST(Results, LatenciesOfARequest) {
  const Outcome outcome = answer(1, {3, 4, 4, 8}, 11);
  EXPECT_DOUBLE_EQ(time_to_first_token(outcome), 2);
  EXPECT_DOUBLE_EQ(end_to_end(outcome), 7.5);
  EXPECT_DOUBLE_EQ(inter_token(outcome).value(), 0.5);  // 5 s over 10 tokens in 4 chunks
  EXPECT_EQ(chunk_gaps(outcome), std::vector<double>({1, 0, 4}));
  EXPECT_FALSE(inter_token(answer(1, {3}, 1)));
}

Slo slo(const std::vector<std::string>& limits) { return Slo::parse(limits).value(); }

TEST(Slo, EachLimitAlone) {
  const Outcome outcome = answer(1, {3, 4, 4, 8}, 11);
  EXPECT_TRUE(slo({"ttft=2s", "itl=500ms", "gap=4s", "e2e=7.5s"}).met_by(outcome));
  for (const auto* missed : {"ttft=1999ms", "itl=499ms", "gap=3.9s", "e2e=7.4s"}) {
    EXPECT_FALSE(slo({missed}).met_by(outcome)) << missed;
  }
  EXPECT_FALSE(slo({"ttft=2s"}).met_by(failure("timeout", 1)));
  EXPECT_EQ(slo({"itl=50ms", "ttft=0.5s"}).text(), "ttft <= 500 ms, itl <= 50.0 ms");
  EXPECT_TRUE(Slo().empty());
  for (const auto* bad : {"", "ttft", "ttft=", "ttft=5", "ttft=-1s", "ttft=0s", "ttft=xs", "p=1s",
                          "ttft=nans", "ttft=1s2", "=1s"}) {
    EXPECT_FALSE(Slo::parse({bad})) << bad;
  }
  EXPECT_FALSE(Slo::parse({"ttft=1s", "ttft=2s"}));
}

Measurement measurement() {
  Measurement out;
  out.outcomes = {answer(0, {1, 2, 3}, 6), answer(1, {2, 2.5}, 2), failure("http 429", 1),
                  failure("http 429", 3), failure("cut off", 4)};
  out.outcomes[1].sent = 1.25;
  out.outcomes.push_back({});  // unfinished
  out.outcomes.back().due = out.outcomes.back().sent = 2;
  out.seconds = 4;
  return out;
}

TEST(Results, CountWhatCame) {
  const Results results = results_of(measurement(), slo({"ttft=1s", "itl=450ms"}));
  EXPECT_EQ(results.done, 2);
  EXPECT_EQ(results.failed, 3);
  EXPECT_EQ(results.unfinished, 1);
  EXPECT_EQ(results.failures.at("http 429").count, 2);
  EXPECT_EQ(results.failures.at("cut off").example, "example");
  EXPECT_EQ(results.output_tokens, 8);
  EXPECT_DOUBLE_EQ(results.per_second(results.output_tokens), 2);
  EXPECT_EQ(results.good, 1);  // the second one's tokens are 500 ms apart
  EXPECT_EQ(results.ttft, std::vector<double>({1, 1}));
  EXPECT_EQ(results.gap.size(), 3);
  EXPECT_DOUBLE_EQ(results.latest, 0.25);
}

TEST(Timeline, KeepsTokensAndRequests) {
  const Timeline timeline = timeline_of(measurement(), 4);
  EXPECT_EQ(timeline.seconds, 1);
  // Six tokens in three chunks, at 1, 2 and 3 s; two at 2 and 2.5 s.
  EXPECT_EQ(timeline.tokens_per_second, std::vector<double>({0, 2, 4, 2}));
  // The answers run 0 to 3.5 and 1.25 to 3, the failures from 0 to 1, 3 and 4, one from 2 on.
  EXPECT_EQ(timeline.running, std::vector<double>({4, 3.75, 5, 2.5}));
  EXPECT_EQ(histogram({0, 0.9, 1, 5.5, 99}, 6, 3), std::vector<uint64_t>({3, 0, 2}));
}

TEST(Report, SaysEverythingThrice) {
  Report report;
  report.url = "http://server";
  report.path = "/v1/completions";
  report.model = "<m>";
  report.fields = nlohmann::json::object();
  report.slo = slo({"itl=450ms"});
  report.measurement = measurement();
  const std::string text = to_text(report);
  for (const auto* part : {"2 done, 3 failed, 1 unfinished", "failed 2 x http 429: example",
                           "2.0 output tokens/s", "1 of 5", "as the server counts them"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  const auto json = to_json(report);
  EXPECT_EQ(json["requests"]["done"], 2);
  EXPECT_EQ(json["failures"]["http 429"]["count"], 2);
  EXPECT_EQ(json["goodput"]["share"], 0.2);
  EXPECT_EQ(json["itl_s"]["count"], 2);
  const std::string drawing = to_svg(report);
  EXPECT_NE(drawing.find("&lt;m&gt;"), std::string::npos);
  EXPECT_NE(drawing.find("failed 2 x http 429"), std::string::npos);

  report.measurement.outcomes.resize(0);  // nothing came: no figure, and no division by it
  report.measurement.seconds = 0;
  EXPECT_EQ(to_json(report)["ttft_s"], nullptr);
  EXPECT_EQ(to_json(report)["output_tokens_per_s"], 0);
  EXPECT_EQ(to_text(report).find("nan"), std::string::npos);
  EXPECT_EQ(to_svg(report).find("nan"), std::string::npos);
}

}  // namespace
}  // namespace flexllm::cli::bench
