#include "cli/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace flexllm::cli {
namespace {

namespace model = kernels::model;
using nlohmann::json;

json to_json(const model::Resources& use) {
  return {{"dsp", use.dsp}, {"bram18", use.bram18}, {"uram", use.uram}, {"lut", use.lut}};
}

// How many pieces of each unit are in a slot, "array x 5, norm", kernel by kernel.
struct SlotPieces {
  std::string kernel;
  std::vector<std::pair<std::string, uint32_t>> units;
};

std::vector<SlotPieces> pieces_in(const PlanReport& report, uint32_t slot) {
  std::vector<SlotPieces> all;
  for (const model::Kernel& kernel : report.accelerator.kernels) {
    SlotPieces in{kernel.name, {}};
    for (const model::Piece& piece : report.placement.pieces) {
      if (piece.slot != slot || piece.kernel != kernel.name) continue;
      const auto found = std::find_if(in.units.begin(), in.units.end(),
                                      [&](const auto& unit) { return unit.first == piece.unit; });
      if (found == in.units.end()) {
        in.units.emplace_back(piece.unit, 1);
      } else {
        ++found->second;
      }
    }
    if (!in.units.empty()) all.push_back(std::move(in));
  }
  return all;
}

json slots_to_json(const PlanReport& report) {
  json slots = json::array();
  const std::vector<model::Slot>& all = report.accelerator.device.slots;
  for (uint32_t i = 0; i < all.size(); ++i) {
    json kernels = json::object();
    for (const SlotPieces& in : pieces_in(report, i)) {
      for (const auto& [unit, count] : in.units) kernels[in.kernel][unit] = count;
    }
    slots.push_back({{"slot", all[i].name},
                     {"slr", all[i].slr},
                     {"used", to_json(report.placement.used[i])},
                     {"usable", to_json(all[i].usable)},
                     {"pieces", std::move(kernels)}});
  }
  return slots;
}

void write_slots(std::string& out, const PlanReport& report) {
  auto at = std::back_inserter(out);
  fmt::format_to(at, "\nslots (at most {:.0f} % of each kind)\n", 100 * model::kShare);
  const std::vector<model::Slot>& all = report.accelerator.device.slots;
  for (uint32_t i = 0; i < all.size(); ++i) {
    const model::Resources& used = report.placement.used[i];
    const model::Resources& usable = all[i].usable;
    fmt::format_to(at, "  {:<14}{:>9.0f}%{:>9.0f}%{:>9.0f}%{:>9.0f}%\n",
                   fmt::format("{} {}", all[i].name, all[i].slr), 100 * used.dsp / usable.dsp,
                   100 * used.bram18 / usable.bram18, 100 * used.uram / usable.uram,
                   100 * used.lut / usable.lut);
    for (const SlotPieces& in : pieces_in(report, i)) {
      std::string text;
      for (const auto& [unit, count] : in.units) {
        text += (text.empty() ? "" : ", ") + unit;
        if (count > 1) text += fmt::format(" x {}", count);
      }
      fmt::format_to(at, "    {}: {}\n", in.kernel, text);
    }
  }
  size_t ports = 0;
  for (const model::Kernel& kernel : report.accelerator.kernels) ports += kernel.ports.size();
  fmt::format_to(at, "  {} of {} AXI masters are on another die than their memory bank\n",
                 report.placement.ports_away, ports);
}

double bytes(double words) { return words * kernels::kWordBytes; }

json to_json(const model::Traffic& traffic) {
  return {{"weights", bytes(traffic.weights)},
          {"kv", bytes(traffic.kv)},
          {"scratch", bytes(traffic.scratch)},
          {"io", bytes(traffic.io)}};
}

model::Traffic traffic_of(const model::StagePlan& plan) {
  model::Traffic all;
  for (const model::RegionTotal& region : plan.regions) all += region.traffic;
  return all;
}

json to_json(const model::StagePlan& plan, const model::Device& device) {
  json regions = json::array();
  for (const model::RegionTotal& region : plan.regions) {
    json modules = json::array();
    for (const model::ModuleTime& module : region.modules) {
      modules.push_back({{"module", module.module},
                         {"begin", module.begin},
                         {"end", module.end},
                         {"busy_cycles", module.busy}});
    }
    regions.push_back({{"region", region.region},
                       {"calls", region.calls},
                       {"cycles", region.cycles},
                       {"bytes", to_json(region.traffic)},
                       {"modules", std::move(modules)}});
  }
  json banks = json::object();
  for (size_t i = 0; i < plan.bank_bytes.size(); ++i) {
    if (plan.bank_bytes[i] > 0) banks[device.banks[i].tag] = plan.bank_bytes[i];
  }
  return {{"clock_mhz", plan.clock_mhz},
          {"tokens", plan.tokens},
          {"cycles", plan.cycles},
          {"seconds", plan.seconds},
          {"tokens_per_s", plan.tokens_per_s},
          {"bottleneck", plan.bottleneck},
          {"bytes", to_json(traffic_of(plan))},
          {"roofline_seconds", plan.roofline_seconds},
          {"roofline_share", plan.roofline_share()},
          {"bank_bytes", std::move(banks)},
          {"regions", std::move(regions)}};
}

void write(std::string& out, const char* title, const model::StagePlan& plan,
           const model::Device& device) {
  auto at = std::back_inserter(out);
  fmt::format_to(at, "\n{} ({} MHz)\n", title, plan.clock_mhz);
  fmt::format_to(at, "  {:<16}{:>12}{:>8}  {:<18}{:>12}\n", "region", "cycles", "share",
                 "busiest module", "its cycles");
  for (const model::RegionTotal& region : plan.regions) {
    const auto busiest = std::max_element(
        region.modules.begin(), region.modules.end(),
        [](const model::ModuleTime& a, const model::ModuleTime& b) { return a.busy < b.busy; });
    fmt::format_to(at, "  {:<16}{:>12.0f}{:>7.1f}%  {:<18}{:>12.0f}\n", region.region,
                   region.cycles, 100 * region.cycles / plan.cycles, busiest->module,
                   busiest->busy);
  }
  fmt::format_to(at, "  {:<16}{:>12.0f}          bottleneck: {}\n", "all", plan.cycles,
                 plan.bottleneck);
  const auto busiest = std::max_element(plan.bank_bytes.begin(), plan.bank_bytes.end());
  const auto bank = static_cast<size_t>(busiest - plan.bank_bytes.begin());
  fmt::format_to(at, "  busiest memory bank: {}, {:.1f} MB, {:.0f} % of what it sustains\n",
                 device.banks[bank].tag, *busiest / 1e6,
                 100 * *busiest / (device.banks[bank].gb_per_s * 1e9) / plan.seconds);
  fmt::format_to(at, "  share of the roofline: {:.0f} %\n", 100 * plan.roofline_share());
}

// How much of the busiest bank's rate both kernels would want if they ran at once.
double contention(const PlanReport& report) {
  double worst = 0;
  for (size_t i = 0; i < report.accelerator.device.banks.size(); ++i) {
    const double rate = report.accelerator.device.banks[i].gb_per_s * 1e9;
    const double wanted = report.prefill->bank_bytes[i] / report.prefill->seconds +
                          report.decode->bank_bytes[i] / report.decode->seconds;
    worst = std::max(worst, wanted / rate);
  }
  return worst;
}

}  // namespace

json to_json(const PlanReport& report) {
  const model::Device& device = report.accelerator.device;
  json resources = to_json(model::total(report.kernels));
  json list = json::array();
  for (const model::KernelResources& kernel : report.kernels) {
    json modules = json::array();
    for (const model::ModuleResources& module : kernel.modules) {
      json entry = to_json(module.use());
      entry["module"] = module.module;
      entry["unit"] = module.unit;
      entry["copies"] = module.copies;
      modules.push_back(std::move(entry));
    }
    json entry = to_json(kernel.total());
    entry["kernel"] = kernel.kernel;
    entry["modules"] = std::move(modules);
    list.push_back(std::move(entry));
  }
  resources["slots"] = slots_to_json(report);
  resources["share_allowed"] = model::kShare;
  resources["ports_on_another_die"] = report.placement.ports_away;
  resources["kernels"] = std::move(list);
  json out = {{"figures", "modelled"},
              {"accelerator", report.accelerator.name},
              {"device", device.name},
              {"model", report.model.name},
              {"scheme", report.scheme.name()},
              {"prompt", report.request.prompt},
              {"generate", report.request.generate},
              {"batch", report.request.batch},
              {"memory",
               {{"weight_bytes_per_arena", report.memory.weight_bytes_per_arena},
                {"kv_bytes_per_token", report.memory.kv_bytes_per_token},
                {"kv_tokens", report.memory.kv_tokens}}},
              {"resources", std::move(resources)}};
  if (report.prefill) {
    out["prefill"] = to_json(*report.prefill, device);
    out["time_to_first_token_s"] = report.prefill->seconds;
  }
  if (report.decode) out["decode"] = to_json(*report.decode, device);
  if (report.prefill && report.decode) out["contention"] = contention(report);
  return out;
}

std::string to_text(const PlanReport& report) {
  std::string out;
  auto at = std::back_inserter(out);
  const model::Device& device = report.accelerator.device;
  fmt::format_to(at, "{} at {} on {} ({}). All figures are modelled.\n", report.model.name,
                 report.scheme.label(), report.accelerator.name, device.name);
  if (report.prefill) {
    fmt::format_to(at, "  prompt of {} tokens: {:.0f} tokens/s; first token after {:.3f} s\n",
                   report.request.prompt, report.prefill->tokens_per_s, report.prefill->seconds);
  }
  if (report.decode) {
    fmt::format_to(at, "  decode of {} tokens, batch {}: {:.0f} tokens/s; a step takes {:.2f} ms\n",
                   report.request.generate, report.request.batch, report.decode->tokens_per_s,
                   1000 * report.decode->seconds);
    const model::Traffic traffic = traffic_of(*report.decode);
    fmt::format_to(at, "  a step moves {:.1f} MB of weights and {:.1f} MB of keys and values\n",
                   bytes(traffic.weights) / 1e6, bytes(traffic.kv) / 1e6);
  }
  if (report.prefill && report.decode) {
    fmt::format_to(at, "  both kernels at once want {:.0f} % of the busiest memory bank\n",
                   100 * contention(report));
  }
  if (report.prefill) write(out, "prefill", *report.prefill, device);
  if (report.decode) write(out, "decode, mean step", *report.decode, device);
  fmt::format_to(at, "\nresources{:>17}{:>10}{:>10}{:>10}\n", "DSP", "BRAM18", "URAM", "LUT");
  const auto line = [&](const std::string& name, const model::Resources& use) {
    fmt::format_to(at, "  {:<14}{:>10.0f}{:>10.0f}{:>10.0f}{:>10.0f}\n", name, use.dsp, use.bram18,
                   use.uram, use.lut);
  };
  for (const model::KernelResources& kernel : report.kernels) line(kernel.kernel, kernel.total());
  line("all", model::total(report.kernels));
  line("usable", device.usable());
  write_slots(out, report);
  fmt::format_to(at,
                 "\nmemory\n  weights: {:.1f} MB in each arena; KV cache: {} B a token, room "
                 "for {} tokens\n",
                 static_cast<double>(report.memory.weight_bytes_per_arena) / 1e6,
                 report.memory.kv_bytes_per_token, report.memory.kv_tokens);
  return out;
}

json to_json(const PublishedTimes& published, double prompt_seconds, double seconds_per_token) {
  return {{"model", published.model},
          {"prefill",
           {{"prompt", published.prompt},
            {"modelled_seconds", prompt_seconds},
            {"published_seconds", published.prompt_seconds},
            {"ratio", prompt_seconds / published.prompt_seconds}}},
          {"decode",
           {{"first_position", published.first_position},
            {"last_position", published.last_position},
            {"modelled_seconds_per_token", seconds_per_token},
            {"published_seconds_per_token", published.seconds_per_token},
            {"ratio", seconds_per_token / published.seconds_per_token}}}};
}

std::string to_text(const PublishedTimes& published, double prompt_seconds,
                    double seconds_per_token) {
  return fmt::format(
      "the published design, {}\n"
      "  prefill of {} tokens: {:.3f} s modelled, {:.3f} s published ({:+.1f} %)\n"
      "  decode, positions {} to {}: {:.3f} ms a token modelled, {:.3f} ms published ({:+.1f} %)\n",
      published.model, published.prompt, prompt_seconds, published.prompt_seconds,
      100 * (prompt_seconds / published.prompt_seconds - 1), published.first_position,
      published.last_position, 1000 * seconds_per_token, 1000 * published.seconds_per_token,
      100 * (seconds_per_token / published.seconds_per_token - 1));
}

namespace {

json parallelism(const model::Kernel& kernel) {
  return {{"tp", kernel.tp},       {"bp", kernel.bp}, {"wp", kernel.wp},
          {"heads", kernel.heads}, {"kv", kernel.kv}, {"outputs", kernel.outputs},
          {"panel", kernel.panel}};
}

std::string short_form(const model::Kernel& kernel) {
  return fmt::format("{}x{}x{} h{} kv{} o{}", kernel.tp, kernel.bp, kernel.wp, kernel.heads,
                     kernel.kv, kernel.outputs);
}

}  // namespace

std::string to_text(const std::vector<model::Candidate>& front, size_t chosen) {
  std::string out = fmt::format("{:>2}{:>11}{:>11}  {:<26}{:<26}{:>6}{:>7}\n", "", "prompt s",
                                "decode s", "prefill tp x bp x wp", "decode", "DSP", "kLUT");
  for (size_t i = 0; i < front.size(); ++i) {
    const model::Candidate& candidate = front[i];
    out += fmt::format("{:>2}{:>11.3f}{:>11.3f}  {:<26}{:<26}{:>6.0f}{:>7.0f}\n",
                       i == chosen ? "*" : "", candidate.prompt_seconds, candidate.decode_seconds,
                       short_form(candidate.accelerator.kernels[0]),
                       short_form(candidate.accelerator.kernels[1]), candidate.use.dsp,
                       candidate.use.lut / 1000);
  }
  return out + "* least weighted time. All figures are modelled.\n";
}

json to_json(const std::vector<model::Candidate>& front, size_t chosen) {
  json list = json::array();
  for (const model::Candidate& candidate : front) {
    list.push_back({{"prompt_seconds", candidate.prompt_seconds},
                    {"decode_seconds", candidate.decode_seconds},
                    {"prefill", parallelism(candidate.accelerator.kernels[0])},
                    {"decode", parallelism(candidate.accelerator.kernels[1])},
                    {"resources", to_json(candidate.use)}});
  }
  return {{"figures", "modelled"}, {"front", std::move(list)}, {"chosen", chosen}};
}

}  // namespace flexllm::cli
