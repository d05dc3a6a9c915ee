// Reads what `flexllm plan` works on from configs/: models, accelerators, devices, the published
// design. A name is a file of that folder that came with the program; what has a '/' or ends in
// '.json' is a path. Throws Failure (kUsage) with the file and the key.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "kernels/model/design.h"
#include "kernels/model/published.h"
#include "quantizer/scheme.h"

namespace flexllm::cli {

// Also throws Failure (kUsage) for a scheme that names a layer which the model lacks.
kernels::model::ModelShape read_model_shape(const std::string& name,
                                            const quantizer::Scheme& scheme);

// Of a checkpoint.
kernels::model::ModelShape model_shape(const formats::ModelConfig& config,
                                       const quantizer::Scheme& scheme);

kernels::model::Accelerator read_accelerator(const std::string& name);

// The published design with the times that its authors give.
struct PublishedTimes {
  std::string model;
  kernels::model::PublishedDesign design;
  uint32_t prompt;
  double prompt_seconds;
  uint32_t first_position;
  uint32_t last_position;
  double seconds_per_token;
};
PublishedTimes read_published(const std::string& name);

}  // namespace flexllm::cli
