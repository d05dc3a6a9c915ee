#include "cli/budget.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cli/calibration.h"
#include "cli/exit_code.h"
#include "cli/plan_config.h"
#include "cli/progress.h"
#include "cli/sensitivity_file.h"
#include "kernels/model/plan.h"
#include "quantizer/rotation/rotated_checkpoint.h"
#include "quantizer/sensitivity/choice.h"
#include "quantizer/sensitivity/sensitivity.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;
namespace model = kernels::model;
using quantizer::Candidate;
using quantizer::MatrixId;
using quantizer::Raised;
using quantizer::Scheme;

constexpr size_t kMostProbes = 8;

struct Budget {
  bool perplexity;  // else speed
  double value;     // share over float; tokens/s
};

Budget parse_budget(const std::string& text) {
  const auto number = [&](std::string_view prefix, std::string_view suffix) {
    std::optional<double> value;
    if (!text.starts_with(prefix) || !text.ends_with(suffix)) return value;
    if (text.size() < prefix.size() + suffix.size()) return value;
    const char* begin = text.data() + prefix.size();
    const char* end = text.data() + text.size() - suffix.size();
    double parsed = 0;
    const auto [stop, error] = std::from_chars(begin, end, parsed);
    if (error == std::errc() && stop == end && std::isfinite(parsed) && parsed > 0) value = parsed;
    return value;
  };
  if (const auto share = number("ppl=+", "%")) return {true, *share / 100};
  if (const auto rate = number("speed=", "")) return {false, *rate};
  throw Failure(kUsage, fmt::format("--budget: '{}' is neither ppl=+N% nor speed=TOKENS_PER_S, "
                                    "with a number above 0; for instance ppl=+3%",
                                    text));
}

quantizer::MatrixPrecision high_precision(const BudgetOptions& options, const Scheme& low) {
  if (options.high.empty()) return {8, 8, low.linears.grouped};
  try {
    const auto precision = Scheme::parse(options.high + "kv8-lm8").linears;
    if (precision.name() == options.high) return precision;
  } catch (const std::invalid_argument&) {
  }
  throw Failure(kUsage, fmt::format("--high: '{}' is no precision, as in w8g64a8", options.high));
}

double over_float(double divergence) { return std::expm1(divergence); }

// Decode by the cycle model: what `flexllm plan` asks by default.
class DecodeTime {
 public:
  DecodeTime(const std::string& accelerator, const formats::ModelConfig& config)
      : accelerator_(read_accelerator(accelerator)), config_(config) {}

  double seconds(const Scheme& scheme) const {
    const model::ModelShape shape = model_shape(config_, scheme);
    check_maxima(accelerator_, shape, request_);
    return plan_decode(accelerator_, shape, request_.batch, request_.prompt, request_.generate)
        .seconds;
  }
  double tokens_per_s(const Scheme& scheme) const { return request_.batch / seconds(scheme); }

 private:
  const model::Accelerator accelerator_;
  const formats::ModelConfig& config_;
  const model::Request request_;
};

// A search for one model: what it measures is made when it is first needed.
class Search {
 public:
  Search(const BudgetOptions& options, const RoundingOptions& rounding, const fs::path& model,
         const formats::Checkpoint& checkpoint, const quantizer::PackOptions& pack)
      : options_(options),
        rounding_(rounding),
        model_(model),
        original_(checkpoint),
        low_(pack.scheme),
        high_(high_precision(options, low_)),
        identity_(pack.identity),
        workers_(pack.threads),
        time_(options.accelerator, checkpoint.config()) {
    quantizer::Rotations rotations =
        complete_rotations(pack.rotations, checkpoint.config(), low_.rotate_residual,
                           low_.rotate_values, pack.rotation_seed, workers_);
    rotations_ = digest(rotations);
    if (!rotations.empty()) {
      rotated_ = std::make_unique<quantizer::RotatedCheckpoint>(checkpoint, std::move(rotations),
                                                                pack.threads);
    }
    ids_ = quantizer::raisable(low_, checkpoint.config().layers);
  }

  BudgetChoice choose(const Budget& budget, nlohmann::json& report) {
    if (ids_.empty()) {
      throw Failure(kUsage,
                    "--budget: every matrix is an exception of --scheme; none can be raised");
    }
    const double fastest = time_.tokens_per_s(low_);
    if (!budget.perplexity && fastest < budget.value) {
      throw Failure(kModel,
                    fmt::format("--budget {}: the closest is {} itself, which decodes "
                                "{:.1f} tokens/s on {} (modelled)",
                                options_.budget, low_.name(), fastest, options_.accelerator));
    }
    const quantizer::Sensitivities found = sensitivities();
    std::vector<Candidate> ordered = candidates(found);
    order_by_worth(ordered);
    const std::vector<double> prediction = predicted(ordered, found.high);

    nlohmann::json probes = nlohmann::json::array();
    const auto measured = [&](const Raised& raised) {
      const quantizer::Distance distance = measure(rounded(), raised, reference());
      fmt::print(stderr, "{} of {} matrices raised: {:+.2f} % over float\n", raised.size(),
                 ids_.size(), 100 * over_float(distance.divergence));
      probes.push_back({{"raised", raised.size()},
                        {"over_float", over_float(distance.divergence)},
                        {"over_float_stderr", distance.divergence_error},
                        {"text_over_float", over_float(distance.loss)},
                        {"text_over_float_stderr", distance.loss_error}});
      return distance.divergence;
    };
    Raised raised;
    std::optional<double> reached;  // divergence
    if (budget.perplexity) {
      const quantizer::Search search =
          quantizer::fewest_raised(prediction, std::log1p(budget.value), kMostProbes,
                                   [&](size_t n) { return measured(first(ordered, n)); });
      raised = first(ordered, search.found.raised);
      if (!search.met) {
        throw Failure(kModel, fmt::format("--budget {}: the closest is {}, {:+.2f} % over float",
                                          options_.budget, scheme(raised).name(),
                                          100 * over_float(search.found.divergence)));
      }
      reached = search.found.divergence;
    } else {
      const auto chosen =
          raise_within(ordered, 1 / budget.value, [&](std::span<const MatrixId> some) {
            return time_.seconds(scheme({some.begin(), some.end()}));
          });
      raised = {chosen.begin(), chosen.end()};
      if (rounded_) reached = measured(raised);
    }

    BudgetChoice choice{scheme(raised), ""};
    double expected = prediction.front();
    for (const Candidate& candidate : ordered) {
      if (raised.contains(candidate.id)) expected -= std::max(0.0, candidate.gain);
    }
    report["budget"] = {{"budget", options_.budget},
                        {"low", low_.name()},
                        {"high", high_.name()},
                        {"matrices", ids_.size()},
                        {"raised", raised.size()},
                        {"predicted_over_float", over_float(expected)},
                        {"measurements", probes},
                        {"accelerator", options_.accelerator},
                        {"modelled_tokens_per_s", time_.tokens_per_s(choice.scheme)},
                        {"modelled_tokens_per_s_low", fastest}};
    if (reached) report["budget"]["over_float"] = over_float(*reached);
    report["sensitivities"] = to_json(found);
    choice.text = describe(choice.scheme, raised, report["budget"]);
    return choice;
  }

 private:
  Scheme scheme(const Raised& raised) const { return quantizer::raise(low_, raised, high_); }

  static Raised first(const std::vector<Candidate>& ordered, size_t count) {
    Raised raised;
    for (size_t i = 0; i < count; ++i) raised.insert(ordered[i].id);
    return raised;
  }

  std::vector<Candidate> candidates(const quantizer::Sensitivities& found) const {
    const double low = time_.seconds(low_);
    std::map<quantizer::MatrixKind, double> costs;  // the same in every layer
    std::vector<Candidate> all;
    for (const quantizer::Sensitivity& sensitivity : found.matrices) {
      const auto [cost, unknown] = costs.try_emplace(sensitivity.id.kind, 0);
      if (unknown) cost->second = time_.seconds(scheme({sensitivity.id})) - low;
      all.push_back({sensitivity.id, sensitivity.divergence - found.high, cost->second});
    }
    return all;
  }

  // Text other than the one that GPTQ rounds by.
  CalibrationOptions judged_by() const {
    CalibrationOptions judged = rounding_.calibration;
    judged.option = "--budget-text";
    judged.text = options_.text;
    judged.windows = options_.windows;
    ++judged.seed;
    return judged;
  }

  const quantizer::Reference::Windows& windows() {
    if (windows_.empty()) windows_ = calibration_windows(model_, judged_by());
    return windows_;
  }

  const quantizer::RoundedModel& rounded() {
    if (!rounded_) {
      const Scheme all_high = scheme({ids_.begin(), ids_.end()});
      const auto rounder = [&](const Scheme& scheme, bool nearest) {
        const auto make = make_rounder(rounding_, model_, scheme);
        if (nearest || !make) {
          return std::unique_ptr<quantizer::Rounder>(new quantizer::NearestRounder());
        }
        return make(checkpoint(), workers_);
      };
      const auto low = rounder(low_, false);
      const auto high = rounder(all_high, high_.weight_bits == 8);
      Progress progress(fmt::format("rounding {} at {} and {}", model_.string(),
                                    low_.linears.name(), high_.name()));
      rounded_ = std::make_unique<quantizer::RoundedModel>(
          checkpoint(),
          quantizer::RoundedModel::Options{low_, high_, *low, *high,
                                           [&](double share) { progress.show(share); }},
          workers_);
    }
    return *rounded_;
  }

  const quantizer::Reference& reference() {
    if (!reference_) {
      reference_ = std::make_unique<quantizer::Reference>(checkpoint(), windows(), workers_);
    }
    return *reference_;
  }

  quantizer::Sensitivities sensitivities() {
    const SensitivityFile file(options_.sensitivity,
                               {{"checkpoint", identity_},
                                {"rotations", rotations_},
                                {"scheme", low_.name()},
                                {"high", high_.name()},
                                {"rounding", rounding_key(rounding_)},
                                {"text", calibration_key(judged_by())},
                                {"tokens", fmt::format("{}", options_.sensitivity_tokens)}});
    if (auto kept = file.load(ids_)) return std::move(*kept);
    quantizer::Reference::Windows some = windows();  // the first tokens of each
    const size_t each = std::max<size_t>(2, options_.sensitivity_tokens / some.size());
    for (auto& window : some) window.resize(std::min(window.size(), each));
    const quantizer::RoundedModel& model = rounded();
    Progress progress(fmt::format("measuring {} matrices on {} x {} tokens", ids_.size(),
                                  some.size(), some.front().size()));
    const quantizer::Reference reference(checkpoint(), std::move(some), workers_);
    auto found = measure_sensitivities(model, reference,
                                       [&progress](double share) { progress.show(share); });
    file.save(found);
    return found;
  }

  std::string describe(const Scheme& scheme, const Raised& raised,
                       const nlohmann::json& report) const {
    std::map<std::string_view, size_t> kinds;
    for (const MatrixId& id : raised) ++kinds[name_of(id.kind)];
    std::vector<std::string> counts;
    for (const auto& [kind, count] : kinds) counts.push_back(fmt::format("{} {}", count, kind));
    std::string text = fmt::format("scheme: {}\nraised to {}: {} of {} matrices{}{}\n",
                                   scheme.name(), high_.name(), raised.size(), ids_.size(),
                                   counts.empty() ? "" : ": ", fmt::join(counts, ", "));
    const double expected = report["predicted_over_float"];
    if (report.contains("over_float")) {
      text += fmt::format(
          "perplexity over float: {:+.2f} %, measured in the float model with roundings simulated "
          "({:+.2f} % predicted)\n",
          100 * report["over_float"].get<double>(), 100 * expected);
    } else {
      text += fmt::format("perplexity over float: {:+.2f} %, predicted\n", 100 * expected);
    }
    return text + fmt::format("decode on {}: {:.1f} tokens/s, modelled\n", options_.accelerator,
                              report["modelled_tokens_per_s"].get<double>());
  }

  const formats::Checkpoint& checkpoint() const { return rotated_ ? *rotated_ : original_; }

  const BudgetOptions& options_;
  const RoundingOptions& rounding_;
  const fs::path& model_;
  const formats::Checkpoint& original_;
  const Scheme low_;
  const quantizer::MatrixPrecision high_;
  const std::string identity_;
  quantizer::Workers workers_;
  const DecodeTime time_;
  std::string rotations_;
  std::unique_ptr<quantizer::RotatedCheckpoint> rotated_;
  std::vector<MatrixId> ids_;
  quantizer::Reference::Windows windows_;
  std::unique_ptr<quantizer::RoundedModel> rounded_;
  std::unique_ptr<quantizer::Reference> reference_;
};

}  // namespace

void add_budget_options(OptionTable& table, BudgetOptions& options) {
  table.group("Mixed precision");
  table.add(
      "budget", options.budget,
      "Raise matrices from the scheme's precision until 'ppl=+3%' over float holds, or as "
      "long as 'speed=600' tokens/s of decode do by the cycle model; empty: as the scheme is");
  table.add("high", options.high,
            "Precision that matrices are raised to; empty: w8a8, or w8g64a8 for a grouped scheme");
  table.add("accelerator", options.accelerator,
            "The accelerator whose time counts, as for flexllm plan");
  table.add("sensitivity", options.sensitivity,
            "File for the measured sensitivities: read if it is there, else written");
  table.add("sensitivity-tokens", options.sensitivity_tokens, 2, 1u << 20,
            "Tokens that every matrix is measured on");
  table.add("budget-text", options.text,
            "Text that the budget is measured on; empty: text that the model writes itself, other "
            "than what GPTQ sees");
  table.add("budget-windows", options.windows, 1, 4096, "Windows of it");
}

void check_budget_options(const OptionTable& table, const BudgetOptions& options,
                          const Scheme& low) {
  if (options.budget.empty()) {
    for (const char* name : {"high", "accelerator", "sensitivity", "sensitivity-tokens",
                             "budget-text", "budget-windows"}) {
      if (table.on_command_line(name)) {
        throw Failure(kUsage, fmt::format("--{} belongs to --budget", name));
      }
    }
    return;
  }
  parse_budget(options.budget);
  const auto high = high_precision(options, low);
  const auto bits = [](const quantizer::MatrixPrecision& precision) {
    return std::pair(precision.weight_bits, precision.activation_bits);
  };
  const auto [weights, activations] = bits(high);
  if (bits(high) == bits(low.linears) || weights < low.linears.weight_bits ||
      activations < low.linears.activation_bits) {
    throw Failure(kUsage, fmt::format("--high: {} has no more bits than {} of the scheme",
                                      high.name(), low.linears.name()));
  }
}

BudgetChoice choose_scheme(const BudgetOptions& options, const RoundingOptions& rounding,
                           const fs::path& model, const formats::Checkpoint& checkpoint,
                           const quantizer::PackOptions& pack, nlohmann::json& report) {
  try {
    pack.scheme.check_layers(checkpoint.config().layers);
    return Search(options, rounding, model, checkpoint, pack)
        .choose(parse_budget(options.budget), report);
  } catch (const model::Refused& refused) {
    throw Failure(kModel, refused.what());
  }
}

}  // namespace flexllm::cli
