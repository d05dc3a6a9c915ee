// The composition: from the options of a command to a model on a card, ready to be scheduled. Used
// by one thread at start-up.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli/option_table.h"
#include "cli/rounding.h"
#include "host/engine.h"
#include "quantizer/scheme.h"
#include "server/api/service.h"
#include "server/scheduling/backend.h"
#include "server/scheduling/scheduler.h"

namespace flexllm::cli {

// The least of a time where 0 would mean to do something without pause, or never to wait for it.
constexpr std::chrono::milliseconds kShortestTime{100};

struct ModelOptions {
  std::filesystem::path model;
  std::string served_model_name;
  std::string scheme = quantizer::Scheme().name();
  RoundingOptions rounding;
  std::optional<float> default_temperature;
  std::optional<float> default_top_p;
  std::string device = "auto";
  std::string emulated_kernels = "twin";
  std::filesystem::path bitstream;
  std::filesystem::path memory_map;
  std::string reset_command;
  std::chrono::milliseconds reset_timeout{60000};
  std::chrono::milliseconds launch_timeout{30000};
  uint64_t max_kv_bytes = 0;
};

void add_model_options(OptionTable& table, ModelOptions& options);
void add_scheduler_options(OptionTable& table, server::SchedulerOptions& options);

struct LoadedModel {
  server::ServedModel served;
  std::unique_ptr<server::Backend> backend;
};

// Of a name, or of the file of that name. Throws Failure (kUsage).
quantizer::Scheme parse_scheme(const std::string& name);

// Where scripts/model puts the default model. Throws Failure if it is not there.
std::filesystem::path default_model();

// Packs the model if it is not packed yet (once; then it lies in the cache), opens the card and
// streams the weights to it. Says on stderr what takes time. Throws Failure.
LoadedModel load_model(const ModelOptions& options, const host::EngineOptions& engine_options);

}  // namespace flexllm::cli
