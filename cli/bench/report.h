// The results of `flexllm bench` as text, JSON and a drawing.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/bench/generator.h"
#include "cli/bench/statistics.h"
#include "cli/bench/workload.h"

namespace flexllm::cli::bench {

struct Report {
  // Of the load, as it was asked for.
  std::string url;
  std::string path;
  std::string model;
  std::string prompts;  // a distribution, or the file's name
  std::string outputs;
  uint64_t seed = 1;
  nlohmann::json fields;
  LoadOptions load;
  Slo slo;
  Measurement measurement;
};

std::string to_text(const Report& report);
nlohmann::json to_json(const Report& report);
// Histograms of the latencies; tokens a second and running requests over time.
std::string to_svg(const Report& report);

// What the load was, in one line, and how tokens were counted, in another.
std::string load_text(const Report& report);
std::string counting_text(const Results& results);

}  // namespace flexllm::cli::bench
