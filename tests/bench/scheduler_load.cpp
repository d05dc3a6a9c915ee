// What clients see of the scheduler at growing load: production's batcher in a time of its own,
// whose launches take what the cycle model says. All figures are modelled. Prints the table of
// docs/scheduling.md and, given a file, draws it.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/bench/statistics.h"
#include "cli/drawing.h"
#include "cli/plan_config.h"
#include "kernels/model/plan.h"
#include "quantizer/scheme.h"
#include "server/tests/simulation.h"

namespace flexllm {
namespace {

namespace model = kernels::model;
using server::testing::Simulation;

constexpr const char* kModel = "llama-3.2-1b";
constexpr const char* kAccelerator = "u280-combined";
constexpr const char* kScheme = "w8a8kv8-lm8-r4";
constexpr uint32_t kRequests = 400;
constexpr uint32_t kContext = 4096;

struct Point {
  double rate = 0;    // requests a second that arrive
  double tokens = 0;  // a second that are generated
  cli::bench::Summary first_token;
  cli::bench::Summary between;
  double batch = 0;  // mean of decode launches
};

class Card {
 public:
  Card()
      : accelerator_(cli::read_accelerator(kAccelerator)),
        shape_(cli::read_model_shape(kModel, quantizer::Scheme::parse(kScheme))) {}

  host::EngineLimits limits() const {
    const auto memory = model::memory_use(accelerator_, shape_, {.prompt = 1, .generate = 1});
    return {.max_prefill_rows = accelerator_.maxima.prefill_rows,
            .max_batch = accelerator_.maxima.batch,
            .max_logits_rows = accelerator_.maxima.batch,
            .context_length = kContext,
            .page_tokens = kernels::kPageTokens,
            .pages = static_cast<uint32_t>(memory.kv_tokens / kernels::kPageTokens),
            .layers = shape_.layers,
            .hidden = shape_.hidden,
            .vocab = server::testing::FakeText::kVocab};
  }

  std::chrono::nanoseconds time(const host::Launch& launch) const {
    std::vector<model::SequenceRows> sequences(launch.sequences.size());
    uint32_t logits = 0;
    for (const host::Row& row : launch.rows) {
      model::SequenceRows& rows = sequences.at(row.sequence);
      if (rows.rows++ == 0) rows.begin = row.position;
      logits += row.outputs.row_result ? 1 : 0;
    }
    const auto stage =
        launch.stage == host::Stage::decode ? model::Stage::decode : model::Stage::prefill;
    return std::chrono::nanoseconds(
        std::llround(1e9 * model::launch_seconds(accelerator_, shape_, stage, sequences, logits)));
  }

 private:
  model::Accelerator accelerator_;
  model::ModelShape shape_;
};

Point measure(const Card& card, double rate, bool shared_memory) {
  server::testing::FakeModel fake;
  fake.limits = card.limits();
  fake.bias[server::testing::FakeText::kEnd] = -1000;
  Simulation simulation(
      fake, {}, [&](const host::Launch& launch) { return card.time(launch); }, shared_memory);
  std::mt19937 random(1);
  std::lognormal_distribution<double> prompt(std::log(256.0), 0.8);
  std::lognormal_distribution<double> answer(std::log(128.0), 0.6);
  std::exponential_distribution<double> gap(rate);
  double arrival = 0;
  for (uint32_t i = 0; i < kRequests; ++i) {
    server::GenerationRequest request;
    request.prompts.emplace_back(std::clamp<size_t>(static_cast<size_t>(prompt(random)), 8, 2048));
    for (auto& token : request.prompts[0]) token = static_cast<uint32_t>('a' + random() % 26);
    request.max_tokens = std::clamp(static_cast<uint32_t>(answer(random)), 2u, 1024u);
    request.sampling.temperature = 0;
    request.seeded = true;
    simulation.add(arrival, std::move(request));
    arrival += gap(random);
  }
  simulation.run();

  Point point{.rate = rate, .tokens = 0, .first_token = {}, .between = {}, .batch = 0};
  std::vector<double> first;
  std::vector<double> between;
  for (const auto& record : simulation.records) {
    if (!record.outcome.usage) throw std::logic_error("a request did not end well");
    first.push_back(record.seen.front() - record.arrived);
    for (size_t i = 1; i < record.seen.size(); ++i) {
      between.push_back(record.seen[i] - record.seen[i - 1]);
    }
  }
  point.tokens = static_cast<double>(simulation.metrics->generated_tokens) / simulation.now();
  point.first_token = cli::bench::summary(first);
  point.between = cli::bench::summary(between);
  point.batch = static_cast<double>(simulation.metrics->generated_tokens - kRequests) /
                static_cast<double>(simulation.metrics->decode_launches);
  return point;
}

void print(const char* title, const std::vector<Point>& points) {
  fmt::print("\n**{}**\n\n", title);
  fmt::print(
      "| requests/s | tokens/s | mean batch | first token p50 | p99 | between tokens p50 | p99 | "
      "longest |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const Point& p : points) {
    fmt::print(
        "| {:.1f} | {:.0f} | {:.1f} | {:.1f} s | {:.1f} s | {:.1f} ms | {:.1f} ms | {:.1f} ms "
        "|\n",
        p.rate, p.tokens, p.batch, p.first_token.p50, p.first_token.p99, 1e3 * p.between.p50,
        1e3 * p.between.p99, 1e3 * p.between.max);
  }
}

// One panel: a curve for each of both, from zero to the largest.
template <class Value>
void panel(cli::Drawing& drawing, double y, const char* title, const char* unit,
           const std::vector<Point>& alone, const std::vector<Point>& shared, Value value) {
  constexpr double kLeft = 80;
  constexpr double kWidth = 620;
  constexpr double kHeight = 120;
  double most = 0;
  for (const auto* points : {&alone, &shared}) {
    for (const Point& p : *points) most = std::max(most, value(p));
  }
  const double last = alone.back().rate;
  drawing.text(kLeft, y - 10, title, "font-weight=\"bold\"");
  drawing.line(kLeft, y, kLeft + kWidth, y, "#eee");
  drawing.line(kLeft, y + kHeight, kLeft + kWidth, y + kHeight, "#555");
  drawing.text(kLeft - 6, y + 8, fmt::format("{:.0f} {}", most, unit), "text-anchor=\"end\"");
  drawing.text(kLeft - 6, y + kHeight, "0", "text-anchor=\"end\"");
  for (const auto& [points, colour] :
       {std::pair(&alone, "#4c78a8"), std::pair(&shared, "#f58518")}) {
    double x0 = 0;
    double y0 = 0;
    for (const Point& p : *points) {
      const double x = kLeft + kWidth * p.rate / last;
      const double at = y + kHeight * (1 - value(p) / most);
      if (x0 > 0) drawing.line(x0, y0, x, at, colour);
      drawing.bar(x - 3, at - 3, 6, 6, colour,
                  fmt::format("{:.1f} requests/s: {:.1f} {}", p.rate, value(p), unit));
      x0 = x;
      y0 = at;
    }
  }
  for (const Point& p : alone) {
    drawing.text(kLeft + kWidth * p.rate / last, y + kHeight + 15, fmt::format("{:g}", p.rate),
                 "text-anchor=\"middle\"");
  }
}

std::string draw(const std::vector<Point>& alone, const std::vector<Point>& shared) {
  cli::Drawing drawing;
  drawing.text(
      12, 24,
      fmt::format("{} as {} on {} (modelled), requests a second", kModel, kScheme, kAccelerator),
      "font-size=\"15\" font-weight=\"bold\"");
  drawing.bar(12, 36, 10, 10, "#4c78a8", "");
  drawing.text(28, 45, "kernels do not disturb each other");
  drawing.bar(262, 36, 10, 10, "#f58518", "");
  drawing.text(278, 45, "side by side each gets half of the memory");
  panel(drawing, 90, "Tokens generated", "/s", alone, shared,
        [](const Point& p) { return p.tokens; });
  panel(drawing, 270, "Time to first token, 99th percentile", "s", alone, shared,
        [](const Point& p) { return p.first_token.p99; });
  panel(drawing, 450, "Between tokens, 99th percentile", "ms", alone, shared,
        [](const Point& p) { return 1e3 * p.between.p99; });
  return drawing.finish(760, 600);
}

int run(int argc, char** argv) {
  const Card card;
  std::vector<Point> alone;
  std::vector<Point> shared;
  for (const double rate : {0.2, 0.4, 0.6, 0.8, 1.0, 1.2}) {
    alone.push_back(measure(card, rate, false));
    shared.push_back(measure(card, rate, true));
  }
  print("Kernels do not disturb each other", alone);
  print("Side by side each gets half of the memory", shared);
  if (argc > 1) std::ofstream(argv[1]) << draw(alone, shared);
  return 0;
}

}  // namespace
}  // namespace flexllm

int main(int argc, char** argv) {
  try {
    return flexllm::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "scheduler_load: {}\n", error.what());
    return 1;
  }
}
