// The results of `flexllm plan` as text, JSON and a drawing. Every figure is modelled.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/plan_config.h"
#include "kernels/model/explore.h"
#include "kernels/model/placement.h"
#include "kernels/model/plan.h"

namespace flexllm::cli {

struct PlanReport {
  kernels::model::Accelerator accelerator;
  kernels::model::ModelShape model;
  quantizer::Scheme scheme;
  kernels::model::Request request;
  kernels::model::MemoryUse memory;
  std::optional<kernels::model::StagePlan> prefill;  // absent: no such kernel
  std::optional<kernels::model::StagePlan> decode;   // a mean step
  std::vector<kernels::model::KernelResources> kernels;
  kernels::model::Placement placement;
};

std::string to_text(const PlanReport& report);
nlohmann::json to_json(const PlanReport& report);

// Gantt of the modules of a prefill layer and of a decode step's layer, and bars of the HBM
// channels, as an SVG document.
std::string to_svg(const PlanReport& report);

// The published design by the model, beside what its authors give.
nlohmann::json to_json(const PublishedTimes& published, double prompt_seconds,
                       double seconds_per_token);
std::string to_text(const PublishedTimes& published, double prompt_seconds,
                    double seconds_per_token);

std::string to_text(const std::vector<kernels::model::Candidate>& front, size_t chosen);
nlohmann::json to_json(const std::vector<kernels::model::Candidate>& front, size_t chosen);

}  // namespace flexllm::cli
