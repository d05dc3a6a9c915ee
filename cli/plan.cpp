// `flexllm plan`: what an accelerator would do with a model, by the cycle model.
#include "kernels/model/plan.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/plan_config.h"
#include "cli/plan_report.h"
#include "cli/subcommand.h"
#include "kernels/model/explore.h"
#include "kernels/model/placement.h"
#include "kernels/model/published.h"

namespace flexllm::cli {
namespace {

namespace model = kernels::model;

constexpr uint64_t kMostTokens = 1 << 20;

struct PlanOptions {
  std::string model = "llama-3.2-1b";
  std::string accelerator = "u280-combined";
  std::string scheme = "w4a4kv8-lm4a4-r4";
  model::Request request;
  bool explore = false;
  std::optional<float> weight;
  bool published = false;
  std::filesystem::path svg;
  bool json = false;
  OptionTable table;
};

void print(const nlohmann::json& report) { fmt::print("{}\n", report.dump(2)); }

int show_published(const PlanOptions& options) {
  const PublishedTimes published = read_published("flexllm-u280");
  const model::ModelShape shape = read_model_shape(published.model, parse_scheme(options.scheme));
  const double prompt = published_prefill_cycles(published.design, shape, published.prompt) /
                        (published.design.prefill_clock_mhz * 1e6);
  const double cached = 0.5 * (published.first_position + published.last_position) + 1;
  const double token = published_decode_cycles(published.design, shape, cached) /
                       (published.design.decode_clock_mhz * 1e6);
  if (options.json) {
    print(to_json(published, prompt, token));
  } else {
    fmt::print("{}", to_text(published, prompt, token));
  }
  return kOk;
}

int explore(const PlanOptions& options, const model::Accelerator& accelerator,
            const model::ModelShape& shape) {
  const std::vector<model::Candidate> front =
      pareto_front(accelerator, shape, options.request, model::kShare);
  if (front.empty()) {
    throw model::Refused("no parallelism of '" + accelerator.name + "' fits its device");
  }
  const double weight = options.weight.value_or(0.5f);
  const auto cost = [&](const model::Candidate& candidate) {
    return weight * candidate.prompt_seconds + (1 - weight) * candidate.decode_seconds;
  };
  const auto best = std::min_element(
      front.begin(), front.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
  const auto chosen = static_cast<size_t>(best - front.begin());
  if (options.json) {
    print(to_json(front, chosen));
  } else {
    fmt::print("{}", to_text(front, chosen));
  }
  return kOk;
}

int plan(PlanOptions& options) {
  options.table.resolve();
  if (options.table.wants_markdown()) {
    fmt::print("{}", options.table.markdown());
    return kOk;
  }
  if (options.published) return show_published(options);
  try {
    PlanReport report;
    report.accelerator = read_accelerator(options.accelerator);
    report.scheme = parse_scheme(options.scheme);
    report.model = read_model_shape(options.model, report.scheme);
    report.request = options.request;
    check_maxima(report.accelerator, report.model, options.request);
    report.memory = memory_use(report.accelerator, report.model, options.request);
    if (options.explore) return explore(options, report.accelerator, report.model);
    for (const model::Kernel& kernel : report.accelerator.kernels) {
      report.kernels.push_back(estimate(report.accelerator, kernel));
    }
    report.placement = place_or_refuse(report.accelerator, report.kernels);
    if (report.accelerator.kernel(model::Stage::prefill) != nullptr) {
      report.prefill = plan_prefill(report.accelerator, report.model, options.request.prompt);
    }
    if (report.accelerator.kernel(model::Stage::decode) != nullptr) {
      report.decode = plan_decode(report.accelerator, report.model, options.request.batch,
                                  options.request.prompt, options.request.generate);
    }
    if (!options.svg.empty()) {
      std::ofstream out(options.svg);
      out << to_svg(report) << std::flush;
      if (!out) throw Failure(kFailed, fmt::format("cannot write {}", options.svg.string()));
    }
    if (options.json) {
      print(to_json(report));
    } else {
      fmt::print("{}", to_text(report));
    }
    return kOk;
  } catch (const model::Refused& reason) {
    throw Failure(kModel, reason.what());
  }
}

}  // namespace

Run add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  OptionTable& table = options->table;
  table.add("model", options->model, "A model of configs/models, or a file like them");
  table.add("accelerator", options->accelerator,
            "An accelerator of configs/accelerators, or a file like them");
  table.add("scheme", options->scheme,
            "Precision of weights, activations and lm_head, as for flexllm quantize");
  table.add("prompt", options->request.prompt, 1, kMostTokens, "Prompt tokens of a sequence");
  table.add("generate", options->request.generate, 1, kMostTokens, "Tokens generated behind it");
  table.add("batch", options->request.batch, 1, 16, "Sequences that decode together");
  table.add("svg", options->svg, "Also draw the timeline into this file");
  table.add("json", options->json, "Print JSON");
  table.group("Other questions");
  table.add("explore", options->explore,
            "Search parallelism and print the designs that no other beats");
  table.add("weight", options->weight, 0.0f, 1.0f,
            "With --explore: weight of prompt time against decode time (0.5)");
  table.add("published", options->published,
            "The published design by the same model, beside its published times");
  table.attach(app);
  return [options] { return plan(*options); };
}

}  // namespace flexllm::cli
