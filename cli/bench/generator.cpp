#include "cli/bench/generator.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "cli/bench/connection.h"
#include "cli/descriptor_limit.h"
#include "cli/exit_code.h"

namespace flexllm::cli::bench {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Seconds = std::chrono::duration<double>;

double thread_cpu_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The warm-up, or what is measured: begins requests until there are enough, and ends with the last.
class Phase {
 public:
  Phase(asio::io_context& io, ConnectionPool& pool, const LoadOptions& options,
        const Workload& workload, bool warm_up, std::function<void(double)> on_end)
      : io_(io),
        pool_(pool),
        options_(options),
        workload_(workload),
        warm_up_(warm_up),
        requests_(warm_up ? options.warm_up : options.requests),
        on_end_(std::move(on_end)),
        arrival_(io),
        signals_(io, SIGINT, SIGTERM) {}

  void run() {
    if (requests_ == 0) return;
    signals_.async_wait([this](const error_code& error, int) {
      if (error) return;
      interrupted_ = true;
      pool_.close_all();
      arrival_.cancel();
    });
    begin_ = Clock::now();
    if (options_.rate) {
      spawn(arrivals());
    } else {
      const uint64_t workers = std::min<uint64_t>(options_.concurrency, requests_);
      for (uint64_t i = 0; i < workers; ++i) spawn(worker());
    }
    io_.restart();
    io_.run();
  }

  std::vector<Outcome> take_outcomes() { return std::move(outcomes_); }
  bool interrupted() const { return interrupted_; }

 private:
  void spawn(asio::awaitable<void> coroutine) {
    ++live_;
    asio::co_spawn(io_, std::move(coroutine), [this](const std::exception_ptr& error) {
      if (error) std::rethrow_exception(error);
      if (--live_ == 0) signals_.cancel();
    });
  }

  double now() const { return Seconds(Clock::now() - begin_).count(); }

  bool may_begin(double at) const {
    if (interrupted_ || begun_ == requests_) return false;
    return warm_up_ || options_.duration.count() == 0 || at < Seconds(options_.duration).count();
  }

  asio::awaitable<void> worker() {
    while (may_begin(now())) {
      PlannedRequest planned = workload_.request(begun_++, warm_up_);
      co_await one(std::move(planned), now());
    }
  }

  asio::awaitable<void> arrivals() {
    Random random = workload_.arrivals(warm_up_);
    double due = random.exponential(*options_.rate);
    while (may_begin(due)) {
      PlannedRequest planned = workload_.request(begun_++, warm_up_);
      arrival_.expires_at(begin_ + std::chrono::duration_cast<Clock::duration>(Seconds(due)));
      error_code error;
      co_await arrival_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (interrupted_) break;
      spawn(one(std::move(planned), due));
      due += random.exponential(*options_.rate);
    }
  }

  asio::awaitable<void> one(PlannedRequest planned, double due) {
    Outcome outcome;
    outcome.due = due;
    outcome.sent = now();
    outcome.asked_tokens = planned.output_tokens;
    outcome.prompt_tokens = planned.prompt_tokens;
    AnswerReader reader(outcome);
    co_await pool_.exchange(workload_.path(), std::move(planned.body), begin_,
                            Clock::now() + options_.timeout, reader);
    // Its connection was closed under it.
    if (interrupted_ && outcome.end == Outcome::End::failed) outcome.end = Outcome::End::unfinished;
    outcomes_.push_back(std::move(outcome));
    const double by_time =
        options_.duration.count() == 0 ? 0 : now() / Seconds(options_.duration).count();
    const double by_count = static_cast<double>(outcomes_.size()) / static_cast<double>(requests_);
    if (on_end_ && !interrupted_) on_end_(std::min(1.0, std::max(by_time, by_count)));
  }

  asio::io_context& io_;
  ConnectionPool& pool_;
  const LoadOptions& options_;
  const Workload& workload_;
  const bool warm_up_;
  const uint64_t requests_;
  const std::function<void(double)> on_end_;
  asio::steady_timer arrival_;
  asio::signal_set signals_;
  Clock::time_point begin_;
  uint64_t begun_ = 0;
  uint64_t live_ = 0;
  bool interrupted_ = false;
  std::vector<Outcome> outcomes_;
};

}  // namespace

Measurement measure(const LoadOptions& options, const Workload& workload,
                    const std::function<void(double)>& on_end) {
  raise_descriptor_limit();
  asio::io_context io(1);
  auto places = places_of(options.url, io.get_executor());
  if (!places) throw Failure(kNetwork, places.error());
  ConnectionPool pool(io.get_executor(), options.url, options.api_key, std::move(*places));
  Measurement out;
  Phase warm_up(io, pool, options, workload, true, nullptr);
  warm_up.run();
  out.warm_up = warm_up.take_outcomes();
  out.interrupted = warm_up.interrupted();
  const auto answered = [](const Outcome& outcome) { return outcome.end == Outcome::End::done; };
  if (out.interrupted ||
      (options.warm_up > 0 && std::none_of(out.warm_up.begin(), out.warm_up.end(), answered))) {
    return out;
  }

  Phase measured(io, pool, options, workload, false, on_end);
  const double cpu = thread_cpu_seconds();
  const auto begin = Clock::now();
  measured.run();
  out.busy = (thread_cpu_seconds() - cpu) / Seconds(Clock::now() - begin).count();
  out.outcomes = measured.take_outcomes();
  out.interrupted = measured.interrupted();
  for (const Outcome& outcome : out.outcomes) {
    if (outcome.end != Outcome::End::unfinished) out.seconds = std::max(out.seconds, outcome.ended);
  }
  return out;
}

}  // namespace flexllm::cli::bench
