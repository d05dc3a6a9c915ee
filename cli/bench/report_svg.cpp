#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/bench/report.h"
#include "cli/drawing.h"

namespace flexllm::cli::bench {
namespace {

constexpr double kWidth = 1180;
constexpr double kLeft = 66;  // of the left column's axes
constexpr double kPanel = 510;
constexpr double kBetween = 74;  // to the next panel on the right
constexpr double kHeight = 130;  // of axes
constexpr size_t kBins = 60;
constexpr size_t kParts = 100;  // of the time
constexpr const char* kBlue = "#4c78a8";
constexpr const char* kRed = "#e45756";
constexpr const char* kGreen = "#54a24b";
constexpr const char* kGrey = "fill=\"#555\"";

void axes(Drawing& drawing, double x, double y, double width, const std::string& top,
          const std::string& first, const std::string& last) {
  drawing.line(x, y, x + width, y, "#eee");
  drawing.line(x, y + kHeight, x + width, y + kHeight, "#555");
  drawing.text(x - 6, y + 8, top, "text-anchor=\"end\" fill=\"#555\"");
  drawing.text(x - 6, y + kHeight, "0", "text-anchor=\"end\" fill=\"#555\"");
  drawing.text(x, y + kHeight + 15, first, kGrey);
  drawing.text(x + width, y + kHeight + 15, last, "text-anchor=\"end\" fill=\"#555\"");
}

// From 0 to the 99th percentile and a margin; what lies above is in the last bar.
void latency(Drawing& drawing, double x, double y, const char* title,
             const std::vector<double>& values, const std::optional<double>& limit) {
  const Summary all = summary(values);
  drawing.text(x, y - 26, fmt::format("{} ({} values)", title, all.count), "font-weight=\"bold\"");
  if (all.count == 0) return;
  drawing.text(x, y - 10,
               fmt::format("p50 {}, p90 {}, p99 {}, max {}{}", duration_text(all.p50),
                           duration_text(all.p90), duration_text(all.p99), duration_text(all.max),
                           limit ? fmt::format("; limit {} (red)", duration_text(*limit)) : ""),
               kGrey);
  const double end = std::max(1e-6, std::min(all.max, 1.25 * all.p99)) * 1.001;
  const std::vector<uint64_t> counts = histogram(values, end, kBins);
  const uint64_t most = *std::max_element(counts.begin(), counts.end());
  const bool clipped = all.max > end;
  axes(drawing, x, y, kPanel, fmt::format("{}", most), "0",
       duration_text(end) + (clipped ? " and above" : ""));
  const double step = kPanel / kBins;
  for (size_t i = 0; i < kBins; ++i) {
    if (counts[i] == 0) continue;
    // What is rare stays visible.
    const double height =
        std::max(1.5, kHeight * static_cast<double>(counts[i]) / static_cast<double>(most));
    const auto edge = [&](size_t bin) {
      return duration_text(end * static_cast<double>(bin) / static_cast<double>(kBins));
    };
    drawing.bar(x + static_cast<double>(i) * step, y + kHeight - height, step - 1, height, kBlue,
                fmt::format("{} to {}: {}", edge(i), edge(i + 1), counts[i]));
  }
  const auto mark = [&](double value, const char* colour, const char* name) {
    if (value > end) return;
    const double at = x + kPanel * value / end;
    drawing.line(at, y, at, y + kHeight, colour);
    drawing.text(at, y + kHeight + 15, name, "text-anchor=\"middle\"");
  };
  mark(all.p50, "#222", all.p50 / end > 0.05 && all.p50 / end < 0.8 ? "p50" : "");
  mark(all.p90, "#222", (all.p90 - all.p50) / end > 0.06 && all.p90 / end < 0.8 ? "p90" : "");
  mark(all.p99, "#222", "");
  if (limit) mark(*limit, kRed, "");
}

void over_time(Drawing& drawing, double y, const char* title, const std::vector<double>& values,
               const Timeline& timeline, const char* colour, const char* unit) {
  constexpr double kWide = 2 * kPanel + kBetween;
  const double most = std::max(1e-9, *std::max_element(values.begin(), values.end()));
  drawing.text(kLeft, y - 10, title, "font-weight=\"bold\"");
  axes(drawing, kLeft, y, kWide, fmt::format("{:.{}f}", most, most < 10 ? 1 : 0), "0",
       duration_text(timeline.seconds * static_cast<double>(values.size())));
  const double step = kWide / static_cast<double>(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] <= 0) continue;
    const double height = kHeight * values[i] / most;
    drawing.bar(
        kLeft + static_cast<double>(i) * step, y + kHeight - height, step - 1, height, colour,
        fmt::format("from {}: {:.1f} {}", duration_text(timeline.seconds * static_cast<double>(i)),
                    values[i], unit));
  }
}

}  // namespace

std::string to_svg(const Report& report) {
  const Results results = results_of(report.measurement, report.slo);
  const Timeline timeline = timeline_of(report.measurement, kParts);
  Drawing drawing;
  drawing.text(12, 24, fmt::format("{} at {}{}", report.model, report.url, report.path),
               "font-size=\"15\" font-weight=\"bold\"");
  drawing.text(12, 44, load_text(report), kGrey);
  std::string counts =
      fmt::format("{} done, {} failed{} in {}: {:.1f} output tokens/s, {:.3f} requests/s",
                  results.done, results.failed,
                  results.unfinished > 0 ? fmt::format(", {} unfinished", results.unfinished) : "",
                  duration_text(results.seconds), results.per_second(results.output_tokens),
                  results.per_second(results.done));
  if (!report.slo.empty()) {
    counts += fmt::format("; goodput {:.3f} requests/s within {}", results.per_second(results.good),
                          report.slo.text());
  }
  drawing.text(12, 62, counts);
  drawing.text(12, 80, counting_text(results), kGrey);
  double y = 98;
  for (const auto& [kind, failures] : results.failures) {
    drawing.text(12, y, fmt::format("failed {} x {}", failures.count, kind), "fill=\"#e45756\"");
    y += 18;
  }
  y += 42;
  const double right = kLeft + kPanel + kBetween;
  latency(drawing, kLeft, y, "time to first token", results.ttft, report.slo.ttft);
  latency(drawing, right, y, "inter-token latency, mean of a request", results.itl, report.slo.itl);
  y += kHeight + 76;
  latency(drawing, kLeft, y, "gap between chunks", results.gap, report.slo.gap);
  latency(drawing, right, y, "end to end", results.e2e, report.slo.e2e);
  y += kHeight + 60;
  over_time(drawing, y, "output tokens/s over time", timeline.tokens_per_second, timeline, kGreen,
            "tokens/s");
  y += kHeight + 60;
  over_time(drawing, y, "requests running over time (mean of each part)", timeline.running,
            timeline, "#b279a2", "requests");
  return drawing.finish(kWidth, y + kHeight + 34);
}

}  // namespace flexllm::cli::bench
