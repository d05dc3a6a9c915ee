#include "host/card/fault.h"

#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace flexllm::card {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::uint64_t kAbortMilliseconds = 200;

struct KindName {
  std::string_view name;
  FaultKind kind;
  FaultEvent event;     // that it waits for
  bool event_is_open;   // "on" may choose another
  std::uint64_t times;  // by default; 0: without limit
};

constexpr KindName kKinds[] = {
    {"hang", FaultKind::hang, FaultEvent::launch, false, 1},
    {"fail", FaultKind::fail, FaultEvent::launch, false, 1},
    {"slow", FaultKind::slow, FaultEvent::launch, true, 1},
    {"sync_fails", FaultKind::sync_fails, FaultEvent::sync, false, 1},
    {"bank_full", FaultKind::bank_full, FaultEvent::allocate, false, 0},
    {"access_denied", FaultKind::access_denied, FaultEvent::open, false, 0},
    {"disappear", FaultKind::disappear, FaultEvent::launch, true, 1},
    {"foreign_bitstream", FaultKind::foreign_bitstream, FaultEvent::launch, true, 1},
};

[[noreturn]] void refuse(const std::string& key, const std::string& why) {
  throw std::runtime_error("fault rule: " + key + ": " + why);
}

// The keys of a rule; each may be read once, and none may be left.
class Keys {
 public:
  explicit Keys(const json& rule) {
    if (!rule.is_object()) throw std::runtime_error("fault rule: not an object");
    for (const auto& [key, value] : rule.items()) left_.emplace(key, value);
  }

  bool has(const std::string& key) const { return left_.contains(key); }

  std::string text(const std::string& key, std::string otherwise = {}) {
    return take(key, std::move(otherwise), &json::is_string);
  }
  std::uint64_t whole(const std::string& key, std::uint64_t otherwise) {
    return take(key, otherwise, &json::is_number_unsigned);
  }
  double number(const std::string& key, double otherwise) {
    return take(key, otherwise, &json::is_number);
  }
  bool flag(const std::string& key) { return take(key, false, &json::is_boolean); }

  void done(std::string_view fault) const {
    if (!left_.empty()) {
      refuse(left_.begin()->first, "is not a key of '" + std::string(fault) + "'");
    }
  }

 private:
  template <typename T>
  T take(const std::string& key, T otherwise, bool (json::*fits)() const noexcept) {
    const auto found = left_.find(key);
    if (found == left_.end()) return otherwise;
    if (!(found->second.*fits)()) refuse(key, "has the wrong type");
    T value = found->second.get<T>();
    left_.erase(found);
    return value;
  }

  std::map<std::string, json> left_;
};

const KindName& kind_named(const std::string& name) {
  for (const KindName& kind : kKinds) {
    if (kind.name == name) return kind;
  }
  refuse("fault", "'" + name + "' is not a fault");
}

FaultEvent event_named(const std::string& name) {
  if (name == "launch") return FaultEvent::launch;
  if (name == "sync") return FaultEvent::sync;
  refuse("on", "'" + name + "' is neither 'launch' nor 'sync'");
}

FaultRule parse(const json& rule) {
  Keys keys(rule);
  const KindName& kind = kind_named(keys.text("fault"));
  FaultRule out;
  out.kind = kind.kind;
  out.event = kind.event;
  if (kind.event_is_open && keys.has("on")) out.event = event_named(keys.text("on"));
  if (keys.has("card")) out.card = static_cast<int>(keys.whole("card", 0));
  if (out.event == FaultEvent::launch) out.kernel = keys.text("kernel");
  if (out.event == FaultEvent::sync || out.event == FaultEvent::allocate) {
    out.bank = keys.text("bank");
  }
  if (out.event == FaultEvent::sync && keys.has("to_card")) out.to_card = keys.flag("to_card");
  out.nth = keys.whole("nth", out.nth);
  out.probability = keys.number("probability", out.probability);
  out.times = keys.whole("times", kind.times);
  if (kind.kind == FaultKind::slow) out.wait = milliseconds(keys.whole("ms", 0));
  if (kind.kind == FaultKind::hang) {
    out.wait = milliseconds(keys.whole("abort_ms", kAbortMilliseconds));
  }
  keys.done(kind.name);
  if (out.nth == 0) refuse("nth", "counts from 1");
  if (!(out.probability > 0.0 && out.probability <= 1.0)) refuse("probability", "not in (0, 1]");
  return out;
}

bool concerns(const FaultRule& rule, FaultEvent event, const FaultSite& site) {
  return rule.event == event && (!rule.card || *rule.card == site.card) &&
         (rule.kernel.empty() || rule.kernel == site.kernel) &&
         (rule.bank.empty() || rule.bank == site.bank) &&
         (!rule.to_card || *rule.to_card == site.to_card);
}

}  // namespace

void FaultScript::load(const json& script) {
  if (!script.is_object()) throw std::runtime_error("fault script: not an object");
  for (const auto& [key, value] : script.items()) {
    if (key == "seed" && value.is_number_unsigned()) {
      const std::lock_guard lock(mutex_);
      generator_.seed(value.get<std::uint64_t>());
    } else if (key == "faults" && value.is_array()) {
      for (const json& rule : value) add(rule);
    } else {
      throw std::runtime_error("fault script: '" + key + "' is unknown or of the wrong type");
    }
  }
}

void FaultScript::add(const json& rule) {
  FaultRule parsed = parse(rule);
  const std::lock_guard lock(mutex_);
  rules_.push_back({std::move(parsed)});
}

void FaultScript::clear() {
  const std::lock_guard lock(mutex_);
  rules_.clear();
}

std::optional<FaultRule> FaultScript::fire(FaultEvent event, const FaultSite& site) {
  const std::lock_guard lock(mutex_);
  for (Armed& armed : rules_) {
    const FaultRule& rule = armed.rule;
    if (!concerns(rule, event, site)) continue;
    if (++armed.matched < rule.nth) continue;
    if (rule.times != 0 && armed.fired >= rule.times) continue;
    if (rule.probability < 1.0 &&
        std::uniform_real_distribution<double>(0.0, 1.0)(generator_) >= rule.probability) {
      continue;
    }
    ++armed.fired;
    return rule;
  }
  return std::nullopt;
}

}  // namespace flexllm::card
