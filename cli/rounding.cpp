#include "cli/rounding.h"

#include <fmt/format.h>

#include <memory>

#include "cli/exit_code.h"
#include "quantizer/rounding/gptq_rounder.h"

namespace flexllm::cli {
namespace {

bool is_gptq(const RoundingOptions& options) {
  if (options.method != "rtn" && options.method != "gptq") {
    throw Failure(kUsage, "--method must be rtn (round to nearest) or gptq");
  }
  return options.method == "gptq";
}

quantizer::GptqSettings settings_of(const RoundingOptions& options) {
  quantizer::GptqSettings settings;
  if (options.damping) settings.damping = double{*options.damping};
  if (options.order != "descending" && options.order != "natural") {
    throw Failure(kUsage, "--gptq-order must be descending or natural");
  }
  if (options.order == "natural") settings.order = quantizer::GptqOptions::Order::natural;
  return settings;
}

}  // namespace

void add_rounding_options(OptionTable& table, RoundingOptions& options) {
  table.add("method", options.method,
            "How weights are rounded: 'rtn', to nearest, or 'gptq', by what a text makes of them");
  add_calibration_options(table, options.calibration);
  table.add("gptq-damping", options.damping, 1e-6f, 100,
            "Added to the Hessian's diagonal, in units of its mean; absent: 0.01");
  table.add("gptq-order", options.order,
            "Inputs are rounded 'descending', the largest first, or as they stand: 'natural'");
}

std::string rounding_key(const RoundingOptions& options) {
  if (!is_gptq(options)) return {};
  return fmt::format("gptq {} {} {}", settings_of(options).damping, options.order,
                     calibration_key(options.calibration));
}

quantizer::PackOptions::MakeRounder make_rounder(const RoundingOptions& options,
                                                 const std::filesystem::path& model,
                                                 const quantizer::Scheme& scheme) {
  if (!is_gptq(options)) return {};
  return [settings = settings_of(options), scheme,
          windows = calibration_windows(model, options.calibration)](
             const formats::Checkpoint& checkpoint, quantizer::Workers& workers) {
    return std::make_unique<quantizer::GptqRounder>(checkpoint, scheme, settings, windows, workers);
  };
}

}  // namespace flexllm::cli
