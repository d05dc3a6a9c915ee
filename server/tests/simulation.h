// The batcher of production in a time of its own: requests arrive and are cancelled at given
// moments, launches take what a cost function says, and thousands of requests take seconds. What
// each one saw is recorded. For tests and benchmarks; one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "server/scheduling/batcher.h"
#include "server/tests/fake_backend.h"
#include "server/tests/fake_text.h"
#include "server/tests/outcome.h"

namespace flexllm::server::testing {

class Simulation {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Cost = std::function<std::chrono::nanoseconds(const host::Launch&)>;

  struct Record {
    double arrived = 0;  // seconds since the simulation began
    std::optional<double> cancel;
    std::optional<double> started;  // has a place
    std::vector<double> seen;       // when each piece of text came
    std::optional<double> ended;
    Outcome outcome;
  };

  // `shared_memory`: see VirtualTime.
  Simulation(const FakeModel& model, const SchedulerOptions& options, Cost cost,
             bool shared_memory = false)
      : time_{.now = {}, .cost = std::move(cost), .shared = shared_memory},
        batcher_(make(model), text, metrics, options,
                 {.started = [this](Job& job) { record_of(job).started = now(); },
                  .ended = [this](Job& job) { record_of(job).ended = now(); },
                  .now = [this] { return time_.now; }}) {}

  static TimePoint at(double seconds) {
    return TimePoint(
        std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(seconds)));
  }
  double now() const { return std::chrono::duration<double>(time_.now.time_since_epoch()).count(); }

  // Before run(). Returns the index of its record.
  size_t add(double arrives, GenerationRequest request, std::optional<double> cancel = {}) {
    auto job = std::make_shared<Job>();
    job->results = std::make_shared<ResultQueue>(size_t{1} << 24);
    job->submitted = at(arrives);
    job->open_choices = static_cast<uint32_t>(request.prompts.size()) * request.n;
    for (const auto& prompt : request.prompts) job->usage.prompt_tokens += prompt.size();
    job->arrival = records.size();
    job->request = std::move(request);
    jobs_.push_back(std::move(job));
    records.push_back({.arrived = arrives,
                       .cancel = cancel,
                       .started = {},
                       .seen = {},
                       .ended = {},
                       .outcome = {}});
    return records.size() - 1;
  }

  // Until all requests have ended. `each_turn` may look and throw things in the way.
  void run(const std::function<void()>& each_turn = {}) {
    std::multimap<double, size_t> arrivals;
    std::multimap<double, size_t> cancels;
    for (size_t i = 0; i < jobs_.size(); ++i) {
      arrivals.emplace(records[i].arrived, i);
      if (records[i].cancel) cancels.emplace(*records[i].cancel, i);
    }
    while (!arrivals.empty() || batcher_.busy()) {
      if (!batcher_.busy()) time_.now = std::max(time_.now, at(arrivals.begin()->first));
      if (batcher_.card() == CardState::lost) {
        time_.now = std::max(time_.now, batcher_.next_recovery());
      }
      for (; !arrivals.empty() && at(arrivals.begin()->first) <= time_.now;
           arrivals.erase(arrivals.begin())) {
        open_.push_back(arrivals.begin()->second);
        batcher_.add(jobs_[arrivals.begin()->second]);
      }
      for (; !cancels.empty() && at(cancels.begin()->first) <= time_.now;
           cancels.erase(cancels.begin())) {
        jobs_[cancels.begin()->second]->results->cancel();
      }
      if (each_turn) each_turn();
      batcher_.turn();
      read();
    }
  }

  std::shared_ptr<FakeCard> card = std::make_shared<FakeCard>();
  std::shared_ptr<FakeText> text = std::make_shared<FakeText>();
  std::shared_ptr<Metrics> metrics = std::make_shared<Metrics>();
  std::vector<Record> records;

 private:
  std::unique_ptr<Backend> make(const FakeModel& model) {
    card->time = &time_;
    return std::make_unique<FakeBackend>(model, card);
  }
  Record& record_of(const Job& job) { return records[job.arrival]; }
  void read() {
    for (const size_t i : open_) {
      for (Event& event : jobs_[i]->results->take()) {
        if (std::holds_alternative<Delta>(event)) records[i].seen.push_back(now());
        records[i].outcome.add(event);
      }
    }
    std::erase_if(open_, [this](size_t i) { return records[i].ended.has_value(); });
  }

  VirtualTime time_;
  std::vector<std::shared_ptr<Job>> jobs_;
  std::vector<size_t> open_;
  Batcher batcher_;
};

}  // namespace flexllm::server::testing
