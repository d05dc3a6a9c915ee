#include "server/tests/fake_backend.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <thread>

namespace flexllm::server::testing {
namespace {

using Kind = host::DeviceError::Kind;
constexpr uint32_t kNothing = UINT32_MAX;

uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

bool falls_due(std::atomic<int>& countdown) {
  const int left = countdown.load();
  if (left < 0) return false;
  countdown = left - 1;
  return left == 0;
}

host::DeviceError error(host::DeviceError::Kind kind, const char* what) {
  return {kind, std::string("fake card: ") + what};
}

}  // namespace

FakeBackend::FakeBackend(FakeModel model, std::shared_ptr<FakeCard> card)
    : model_(std::move(model)),
      card_(std::move(card)),
      pages_(model_.limits.pages),
      memory_(model_.limits.pages, std::vector<uint32_t>(model_.limits.page_tokens, kNothing)) {
  card_->pages_available = pages_.available();
}

host::DeviceError FakeBackend::fault(const char* what) {
  const Kind kind = card_->fault_kind;
  broken_ = broken_ || kind != Kind::launch_failed;
  return error(kind, what);
}

void FakeBackend::check(const host::Launch& launch) const {
  const auto& limits = model_.limits;
  const bool decode = launch.stage == host::Stage::decode;
  if (launch.rows.empty()) throw std::invalid_argument("no rows");
  if (launch.rows.size() > (decode ? limits.max_batch : limits.max_prefill_rows)) {
    throw std::invalid_argument("too many rows");
  }
  uint32_t logits_rows = 0;
  std::map<uint32_t, uint32_t> last;
  for (const auto& row : launch.rows) {
    const auto& table = launch.sequences.at(row.sequence);
    if (row.position / limits.page_tokens >= table.size()) {
      throw std::invalid_argument("a position beyond its page table");
    }
    if (row.position >= limits.context_length) throw std::invalid_argument("beyond the context");
    if (row.token >= limits.vocab) throw std::invalid_argument("no such token");
    const auto [seen, first] = last.try_emplace(row.sequence, row.position);
    if (!first && (decode || row.position != seen->second + 1)) {
      throw std::invalid_argument("rows out of order");
    }
    seen->second = row.position;
    if (row.outputs.row_result || row.outputs.target_logprob) ++logits_rows;
  }
  if (!decode && logits_rows > limits.max_logits_rows) {
    throw std::invalid_argument("too many rows with logits");
  }
}

std::vector<float> FakeBackend::logits_of(uint64_t hash) const {
  std::vector<float> logits(model_.limits.vocab);
  for (uint32_t token = 0; token < logits.size(); ++token) {
    const auto noise =
        static_cast<float>(mix(hash ^ (token * 0x100000001B3ull)) >> 40) / 16777216.f;
    const auto bias = model_.bias.find(token);
    logits[token] = 4 * noise + (bias == model_.bias.end() ? model_.other_bias : bias->second);
  }
  return logits;
}

tl::expected<void, host::DeviceError> FakeBackend::start(const host::Launch& launch) {
  if (broken_) return tl::unexpected(error(Kind::lost, "not recovered"));
  Flight& flight = this->flight(launch.stage);
  if (flight.running) throw std::invalid_argument("this stage is running");
  check(launch);
  if (falls_due(card_->fail_start_after)) return tl::unexpected(fault("start"));
  ++card_->launches;
  card_->rows += static_cast<int>(launch.rows.size());
  const bool decode = launch.stage == host::Stage::decode;
  if (decode) {
    card_->largest_decode =
        std::max(card_->largest_decode.load(), static_cast<int>(launch.rows.size()));
  } else {
    card_->largest_prefill =
        std::max(card_->largest_prefill.load(), static_cast<int>(launch.rows.size()));
    if (decode_.running) ++card_->mixed_turns;
  }
  flight = {};
  flight.running = true;
  take_time(flight, launch);
  const uint32_t page_tokens = model_.limits.page_tokens;
  for (const auto& row : launch.rows) {
    if (card_->bad_token == static_cast<int>(row.token)) flight.failed = true;
    const auto& table = launch.sequences[row.sequence];
    memory_[table[row.position / page_tokens]][row.position % page_tokens] = row.token;
    uint64_t hash = 0;
    for (uint32_t p = 0; p <= row.position; ++p) {
      hash = mix(hash ^ memory_[table[p / page_tokens]][p % page_tokens]);
    }
    std::vector<float> logits;
    host::RowOutput output;
    std::vector<uint32_t> ids;
    std::vector<float> top;
    if (row.outputs.row_result || row.outputs.target_logprob) {
      logits = logits_of(hash);
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      output.log_sum_exp = static_cast<float>(std::log(sum));
      if (row.outputs.target_logprob) {
        output.target_logprob = logits[row.target] - output.log_sum_exp;
      }
      ids.resize(logits.size());
      std::iota(ids.begin(), ids.end(), 0);
      std::stable_sort(ids.begin(), ids.end(),
                       [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
      ids.resize(std::min<size_t>(64, ids.size()));
      for (const uint32_t id : ids) top.push_back(logits[id]);
      output.argmax = ids[0];
      output.max = top[0];
    }
    flight.logits.push_back(std::move(logits));
    flight.top_ids.push_back(std::move(ids));
    flight.top_logits.push_back(std::move(top));
    if (row.outputs.row_result) {
      output.top_ids = flight.top_ids.back();
      output.top_logits = flight.top_logits.back();
    }
    flight.result.rows.push_back(output);
  }
  return {};
}

std::chrono::steady_clock::time_point FakeBackend::now() const {
  return card_->time != nullptr ? card_->time->now : std::chrono::steady_clock::now();
}

void FakeBackend::take_time(Flight& flight, const host::Launch& launch) {
  std::chrono::nanoseconds time = std::chrono::microseconds(1);
  if (card_->time == nullptr) {
    time = std::max<std::chrono::nanoseconds>(std::chrono::milliseconds(card_->launch_ms), time);
  } else {
    time = card_->time->cost(launch);
    Flight& other = &flight == &decode_ ? prefill_ : decode_;
    if (card_->time->shared && other.running && other.ends > now()) {
      const auto both = std::min<std::chrono::nanoseconds>(time, other.ends - now());
      other.ends += both;
      time += both;
    }
  }
  flight.result.kernel_time = time;
  flight.ends = now() + time;
}

bool FakeBackend::finished(host::Stage stage) const {
  const Flight& flight = stage == host::Stage::decode ? decode_ : prefill_;
  return !card_->hold && now() >= flight.ends;
}

tl::expected<host::LaunchResult, host::DeviceError> FakeBackend::wait(host::Stage stage) {
  Flight& flight = this->flight(stage);
  if (!flight.running) throw std::logic_error("nothing to wait for");
  flight.running = false;
  if (card_->time != nullptr) {
    card_->time->now = std::max(card_->time->now, flight.ends);
  } else {
    std::this_thread::sleep_until(flight.ends);
  }
  while (card_->hold) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  card_->pages_available = pages_.available();
  if (broken_) return tl::unexpected(error(Kind::lost, "not recovered"));
  if (falls_due(card_->fail_wait_after)) return tl::unexpected(fault("wait"));
  if (flight.failed) return tl::unexpected(error(Kind::launch_failed, "bad token"));
  return flight.result;
}

tl::expected<std::vector<float>, host::DeviceError> FakeBackend::logits(host::Stage stage,
                                                                        uint32_t row) {
  if (falls_due(card_->fail_logits_after)) return tl::unexpected(fault("logits"));
  if (broken_ || flight(stage).running) {
    return tl::unexpected(error(Kind::lost, "no logits now"));
  }
  return flight(stage).logits.at(row);
}

tl::expected<std::vector<std::byte>, host::DeviceError> FakeBackend::read_page(host::PageId page) {
  if (broken_ || falls_due(card_->fail_copy_after)) return tl::unexpected(fault("read page"));
  const auto bytes = std::as_bytes(std::span(memory_.at(page)));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

tl::expected<void, host::DeviceError> FakeBackend::write_page(host::PageId page,
                                                              std::span<const std::byte> bytes) {
  if (broken_ || falls_due(card_->fail_copy_after)) return tl::unexpected(fault("write page"));
  const auto target = std::as_writable_bytes(std::span(memory_.at(page)));
  if (bytes.size() != target.size()) throw std::invalid_argument("not a page");
  std::copy(bytes.begin(), bytes.end(), target.begin());
  return {};
}

tl::expected<void, host::DeviceError> FakeBackend::recover() {
  for (auto& page : memory_) std::fill(page.begin(), page.end(), kNothing);
  decode_ = {};
  prefill_ = {};
  ++card_->recoveries;
  while (card_->hold_recovery) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (card_->throwing_recoveries > 0) {
    --card_->throwing_recoveries;
    throw std::runtime_error("the driver threw");
  }
  if (card_->failing_recoveries > 0) {
    --card_->failing_recoveries;
    return tl::unexpected(error(Kind::reset_failed, "no reset"));
  }
  broken_ = false;
  return {};
}

}  // namespace flexllm::server::testing
