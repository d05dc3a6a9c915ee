#include "host/card/fault.h"

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace flexllm::card {
namespace {

using nlohmann::json;

struct KindName {
  std::string_view name;
  FaultKind kind;
  FaultEvent event;
  std::uint64_t times;
};

constexpr KindName kKinds[] = {
    {"hang", FaultKind::hang, FaultEvent::launch, 1},
    {"fail", FaultKind::fail, FaultEvent::launch, 1},
    {"slow", FaultKind::slow, FaultEvent::launch, 1},
    {"sync_fails", FaultKind::sync_fails, FaultEvent::sync, 1},
    {"bank_full", FaultKind::bank_full, FaultEvent::allocate, 0},
    {"access_denied", FaultKind::access_denied, FaultEvent::open, 0},
    {"disappear", FaultKind::disappear, FaultEvent::launch, 1},
    {"foreign_bitstream", FaultKind::foreign_bitstream, FaultEvent::launch, 1},
};

constexpr std::pair<std::string_view, FaultEvent> kEvents[] = {
    {"launch", FaultEvent::launch}, {"sync", FaultEvent::sync}, {"open", FaultEvent::open}};

[[noreturn]] void refuse(const std::string& key, const std::string& why) {
  throw std::runtime_error("fault rule: " + key + ": " + why);
}

const KindName& kind_of(const json& rule) {
  const std::string name = rule.value("fault", "");
  for (const KindName& kind : kKinds) {
    if (kind.name == name) return kind;
  }
  refuse("fault", "'" + name + "' is not a fault");
}

FaultEvent event_named(const std::string& name) {
  for (const auto& [known, event] : kEvents) {
    if (known == name) return event;
  }
  refuse("on", "'" + name + "' is not an event");
}

FaultRule parse(const json& rule) {
  if (!rule.is_object()) throw std::runtime_error("fault rule: not an object");
  const KindName& kind = kind_of(rule);
  FaultRule out;
  out.kind = kind.kind;
  out.event = kind.event;
  out.times = kind.times;
  out.wait = std::chrono::milliseconds(0);
  const bool chooses_event =
      kind.kind == FaultKind::disappear || kind.kind == FaultKind::foreign_bitstream;
  for (const auto& [key, value] : rule.items()) {
    try {
      if (key == "fault") {
      } else if (key == "card") {
        out.card = value.get<int>();
      } else if (key == "nth") {
        out.nth = value.get<std::uint64_t>();
      } else if (key == "times") {
        out.times = value.get<std::uint64_t>();
      } else if (key == "probability") {
        out.probability = value.get<double>();
      } else if (key == "on" && chooses_event) {
        out.event = event_named(value.get<std::string>());
      } else if (key == "kernel") {
        out.kernel = value.get<std::string>();
      } else if (key == "bank") {
        out.bank = value.get<std::string>();
      } else if (key == "to_card") {
        out.to_card = value.get<bool>();
      } else if (key == "ms" && kind.kind == FaultKind::slow) {
        out.wait = std::chrono::milliseconds(value.get<std::uint32_t>());
      } else {
        refuse(key, "is not a key of '" + std::string(kind.name) + "'");
      }
    } catch (const json::exception&) {
      refuse(key, "has the wrong type");
    }
  }
  if (out.nth == 0) refuse("nth", "counts from 1");
  if (!(out.probability > 0.0 && out.probability <= 1.0)) refuse("probability", "not in (0, 1]");
  if (!out.kernel.empty() && out.event != FaultEvent::launch) refuse("kernel", "launches only");
  if (!out.bank.empty() && out.event != FaultEvent::sync && out.event != FaultEvent::allocate) {
    refuse("bank", "syncs and allocations only");
  }
  if (out.to_card && out.event != FaultEvent::sync) refuse("to_card", "syncs only");
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
