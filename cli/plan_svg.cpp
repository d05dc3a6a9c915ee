#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <string_view>

#include "cli/drawing.h"
#include "cli/plan_report.h"

namespace flexllm::cli {
namespace {

namespace model = kernels::model;

constexpr double kWidth = 1180;
constexpr double kLeft = 190;  // of the time axis
constexpr double kRight = 1160;
constexpr double kRow = 18;
constexpr std::array<const char*, 6> kColours = {"#4c78a8", "#f58518", "#54a24b",
                                                 "#b279a2", "#e45756", "#72b7b2"};
constexpr const char* kOncePerLaunch[] = {"inputs", "lm_head", "row results", "hidden outputs"};

bool in_layer(const model::RegionTotal& region) {
  return std::none_of(std::begin(kOncePerLaunch), std::end(kOncePerLaunch),
                      [&](std::string_view name) { return name == region.region; });
}

// The modules of one layer, region behind region; returns where the next part begins.
double draw_layer(Drawing& drawing, const char* title, const model::StagePlan& plan, double y) {
  double cycles = 0;
  for (const model::RegionTotal& region : plan.regions) {
    if (in_layer(region)) cycles += region.cycles / region.calls;
  }
  drawing.text(
      12, y,
      fmt::format("{}: a layer, {:.0f} cycles at {} MHz (modelled)", title, cycles, plan.clock_mhz),
      "font-weight=\"bold\"");
  y += 10;
  const double scale = (kRight - kLeft) / cycles;
  double begin = 0;
  size_t colour = 0;
  for (const model::RegionTotal& region : plan.regions) {
    if (!in_layer(region)) continue;
    const double length = region.cycles / region.calls;
    drawing.text(12, y + kRow * 0.75, region.region, "font-weight=\"bold\" fill=\"#555\"");
    for (const model::ModuleTime& module : region.modules) {
      const double from = kLeft + (begin + module.begin) * scale;
      const double span = std::max(0.0, std::min(module.end, length) - module.begin);
      const double busy = module.busy / region.calls;
      drawing.text(kLeft - 8, y + kRow * 0.75, module.module, "text-anchor=\"end\"");
      const std::string about = fmt::format("{}: cycles {:.0f} to {:.0f}, busy {:.0f}",
                                            module.module, module.begin, module.end, busy);
      drawing.bar(from, y + 3, span * scale, kRow - 6, "#e4e4e4", about);
      drawing.bar(from, y + 3, std::min(busy, span) * scale, kRow - 6,
                  kColours[colour % kColours.size()], about);
      y += kRow;
    }
    begin += length;
    ++colour;
    drawing.line(kLeft, y + 1, kRight, y + 1);
    y += 4;
  }
  return y + 26;
}

// How much of what each memory bank sustains a stage takes.
double draw_banks(Drawing& drawing, const char* title, const model::StagePlan& plan,
                  const model::Device& device, double y) {
  drawing.text(12, y, fmt::format("{}: share of what each memory bank sustains (modelled)", title),
               "font-weight=\"bold\"");
  y += 14;
  constexpr double kHeight = 90;
  const auto used = static_cast<double>(std::count_if(
      plan.bank_bytes.begin(), plan.bank_bytes.end(), [](double b) { return b > 0; }));
  const double step = std::min(44.0, (kRight - 60) / std::max(1.0, used));
  double x = 60;
  drawing.text(52, y + 8, "100 %", "text-anchor=\"end\"");
  drawing.text(52, y + kHeight, "0", "text-anchor=\"end\"");
  drawing.line(56, y, 60 + step * used, y);
  drawing.line(56, y + kHeight, 60 + step * used, y + kHeight);
  for (size_t i = 0; i < plan.bank_bytes.size(); ++i) {
    if (plan.bank_bytes[i] <= 0) continue;
    const double share = plan.bank_bytes[i] / (device.banks[i].gb_per_s * 1e9) / plan.seconds;
    const double height = kHeight * std::min(1.0, share);
    drawing.bar(x + 2, y + kHeight - height, step - 4, height, "#4c78a8",
                fmt::format("{}: {:.1f} MB, {:.0f} %", device.banks[i].tag,
                            plan.bank_bytes[i] / 1e6, 100 * share));
    drawing.text(x + step / 2, y + kHeight + 13, fmt::format("{}", i),
                 "text-anchor=\"middle\" font-size=\"10\"");
    x += step;
  }
  return y + kHeight + 44;
}

}  // namespace

std::string to_svg(const PlanReport& report) {
  Drawing drawing;
  double y = 24;
  drawing.text(12, y,
               fmt::format("{} at {} on {}: prompt {}, generate {}, batch {}", report.model.name,
                           report.scheme.label(), report.accelerator.name, report.request.prompt,
                           report.request.generate, report.request.batch),
               "font-size=\"15\" font-weight=\"bold\"");
  y += 20;
  drawing.text(12, y,
               "Coloured: busy; grey: from its first to its last cycle in a call of the region.",
               "fill=\"#555\"");
  y += 26;
  const model::Device& device = report.accelerator.device;
  if (report.prefill) y = draw_layer(drawing, "prefill", *report.prefill, y);
  if (report.decode) y = draw_layer(drawing, "decode", *report.decode, y);
  if (report.prefill) y = draw_banks(drawing, "prefill", *report.prefill, device, y);
  if (report.decode) y = draw_banks(drawing, "decode", *report.decode, device, y);
  return drawing.finish(kWidth, y);
}

}  // namespace flexllm::cli
