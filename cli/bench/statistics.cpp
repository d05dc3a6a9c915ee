#include "cli/bench/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <string_view>

namespace flexllm::cli::bench {
namespace {

double percentile(const std::vector<double>& sorted, double q) {
  const double rank = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// "0.5s", "50ms"; above 0.
std::optional<double> duration_of(std::string_view text) {
  double unit = 1;
  if (text.ends_with("ms")) {
    unit = 1e-3;
    text.remove_suffix(2);
  } else if (text.ends_with('s')) {
    text.remove_suffix(1);
  } else {
    return std::nullopt;
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(value > 0 && value <= 1e9)) return std::nullopt;
  return value * unit;
}

struct NamedLimit {
  const char* name;
  std::optional<double> Slo::*limit;
};
constexpr NamedLimit kLimits[] = {
    {"ttft", &Slo::ttft}, {"itl", &Slo::itl}, {"gap", &Slo::gap}, {"e2e", &Slo::e2e}};

template <class Values>
void append(std::vector<double>& to, const Values& values) {
  to.insert(to.end(), values.begin(), values.end());
}

size_t bin_of(double value, double width, size_t bins) {
  return static_cast<size_t>(std::clamp(value / width, 0.0, static_cast<double>(bins - 1)));
}

}  // namespace

Summary summary(std::vector<double> values) {
  Summary out;
  out.count = values.size();
  if (values.empty()) return out;
  std::sort(values.begin(), values.end());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(out.count);
  out.p50 = percentile(values, 0.50);
  out.p90 = percentile(values, 0.90);
  out.p99 = percentile(values, 0.99);
  out.max = values.back();
  return out;
}

double time_to_first_token(const Outcome& outcome) { return outcome.chunks.front() - outcome.due; }

double end_to_end(const Outcome& outcome) { return outcome.ended - outcome.due; }

std::optional<double> inter_token(const Outcome& outcome) {
  if (outcome.output_tokens < 2) return std::nullopt;
  return (outcome.chunks.back() - outcome.chunks.front()) / (outcome.output_tokens - 1);
}

std::vector<double> chunk_gaps(const Outcome& outcome) {
  std::vector<double> gaps;
  for (size_t i = 1; i < outcome.chunks.size(); ++i) {
    gaps.push_back(outcome.chunks[i] - outcome.chunks[i - 1]);
  }
  return gaps;
}

tl::expected<Slo, std::string> Slo::parse(const std::vector<std::string>& limits) {
  Slo out;
  for (const std::string& limit : limits) {
    const size_t equals = limit.find('=');
    const std::string_view name = std::string_view(limit).substr(0, equals);
    const auto* known = std::find_if(std::begin(kLimits), std::end(kLimits),
                                     [&](const NamedLimit& one) { return one.name == name; });
    const auto value = equals == std::string::npos
                           ? std::nullopt
                           : duration_of(std::string_view(limit).substr(equals + 1));
    if (known == std::end(kLimits) || !value) {
      return tl::unexpected(fmt::format(
          "ttft, itl, gap or e2e, '=', and a time such as 0.5s or 50ms; not '{}'", limit));
    }
    if (out.*known->limit) {
      return tl::unexpected(fmt::format("one limit for each latency; {} has two", known->name));
    }
    out.*known->limit = value;
  }
  return out;
}

bool Slo::met_by(const Outcome& outcome) const {
  if (outcome.end != Outcome::End::done) return false;
  if (ttft && time_to_first_token(outcome) > *ttft) return false;
  if (itl && inter_token(outcome).value_or(0) > *itl) return false;
  if (e2e && end_to_end(outcome) > *e2e) return false;
  if (!gap) return true;
  const std::vector<double> gaps = chunk_gaps(outcome);
  return std::none_of(gaps.begin(), gaps.end(), [this](double one) { return one > *gap; });
}

std::string Slo::text() const {
  std::string out;
  for (const NamedLimit& one : kLimits) {
    if (!(this->*one.limit)) continue;
    out += fmt::format("{}{} <= {}", out.empty() ? "" : ", ", one.name,
                       duration_text(*(this->*one.limit)));
  }
  return out;
}

Results results_of(const Measurement& measurement, const Slo& slo) {
  Results out;
  out.seconds = measurement.seconds;
  for (const Outcome& outcome : measurement.outcomes) {
    out.latest = std::max(out.latest, outcome.sent - outcome.due);
    if (outcome.end == Outcome::End::unfinished) {
      ++out.unfinished;
      continue;
    }
    if (outcome.end == Outcome::End::failed) {
      ++out.failed;
      Failures& failures = out.failures[outcome.kind];
      if (failures.count++ == 0) failures.example = outcome.message;
      continue;
    }
    ++out.done;
    if (outcome.usage) ++out.with_usage;
    out.prompt_tokens += outcome.prompt_tokens;
    out.output_tokens += outcome.output_tokens;
    out.asked_tokens += outcome.asked_tokens;
    out.chunks += outcome.chunks.size();
    out.ttft.push_back(time_to_first_token(outcome));
    out.e2e.push_back(end_to_end(outcome));
    if (const auto itl = inter_token(outcome)) out.itl.push_back(*itl);
    append(out.gap, chunk_gaps(outcome));
    if (slo.met_by(outcome)) ++out.good;
  }
  return out;
}

Timeline timeline_of(const Measurement& measurement, size_t bins) {
  Timeline out;
  out.seconds = measurement.seconds / static_cast<double>(bins);
  out.tokens_per_second.resize(bins);
  out.running.resize(bins);
  if (measurement.seconds <= 0) return out;
  for (const Outcome& outcome : measurement.outcomes) {
    const bool unfinished = outcome.end == Outcome::End::unfinished;
    const double end = unfinished ? measurement.seconds : outcome.ended;
    const double in_a_chunk = outcome.usage && !outcome.chunks.empty()
                                  ? static_cast<double>(outcome.output_tokens) /
                                        static_cast<double>(outcome.chunks.size())
                                  : 1;
    for (const double time : outcome.chunks) {
      if (time > measurement.seconds) break;
      out.tokens_per_second[bin_of(time, out.seconds, bins)] += in_a_chunk / out.seconds;
    }
    for (size_t i = bin_of(outcome.sent, out.seconds, bins); i < bins; ++i) {
      const double from = std::max(outcome.sent, static_cast<double>(i) * out.seconds);
      const double to = std::min(end, static_cast<double>(i + 1) * out.seconds);
      if (to <= from) break;
      out.running[i] += (to - from) / out.seconds;
    }
  }
  return out;
}

std::vector<uint64_t> histogram(const std::vector<double>& values, double end, size_t bins) {
  std::vector<uint64_t> counts(bins);
  for (const double value : values) ++counts[bin_of(value, end / static_cast<double>(bins), bins)];
  return counts;
}

std::string duration_text(double seconds) {
  const bool in_ms = seconds < 1;
  const double value = in_ms ? seconds * 1e3 : seconds;
  const int digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  return fmt::format("{:.{}f} {}", value, digits, in_ms ? "ms" : "s");
}

}  // namespace flexllm::cli::bench
