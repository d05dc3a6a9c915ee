#include "host/memory_map.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace flexllm::host {
namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

uint64_t number(const Json& object, const char* key, uint64_t low, uint64_t high) {
  const Json& value = object.at(key);
  if (!value.is_number_unsigned() || value.get<uint64_t>() < low || value.get<uint64_t>() > high) {
    refuse(std::string(key) + " is not a number between " + std::to_string(low) + " and " +
           std::to_string(high));
  }
  return value.get<uint64_t>();
}

uint32_t dimension(const Json& object, const char* key, uint32_t high = 1u << 24) {
  return static_cast<uint32_t>(number(object, key, 1, high));
}

// "desc", "model", "result", "scratch", "w0".., "kv0"..
std::vector<std::string> argument_names(const MemoryMap& map) {
  std::vector<std::string> names{"desc", "model", "result", "scratch"};
  for (uint32_t i = 0; i < map.weight_streams; ++i)
    names.push_back(std::string("w").append(std::to_string(i)));
  for (uint32_t i = 0; i < map.kv_streams; ++i)
    names.push_back(std::string("kv").append(std::to_string(i)));
  return names;
}

KernelMap parse_kernel(const Json& json, const MemoryMap& map) {
  KernelMap kernel;
  kernel.name = json.at("name").get<std::string>();
  kernel.compute_unit = json.at("compute_unit").get<std::string>();
  const std::vector<std::string> names = argument_names(map);
  const Json& arguments = json.at("arguments");
  if (arguments.size() != names.size()) {
    refuse("kernel '" + kernel.name + "' has " + std::to_string(arguments.size()) +
           " arguments instead of " + std::to_string(names.size()));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    KernelArgument argument;
    argument.name = arguments.at(i).at("name").get<std::string>();
    if (argument.name != names[i]) {
      refuse("argument " + std::to_string(i) + " of kernel '" + kernel.name + "' is '" +
             argument.name + "' instead of '" + names[i] + "'");
    }
    argument.bank = static_cast<uint32_t>(number(arguments.at(i), "bank", 0, map.banks.size() - 1));
    kernel.arguments.push_back(std::move(argument));
  }
  return kernel;
}

MemoryMap parse(const Json& json) {
  MemoryMap map;
  map.accelerator = json.at("accelerator").get<std::string>();
  map.weight_streams = dimension(json, "weight_streams", 64);
  map.kv_streams = dimension(json, "kv_streams", 64);
  const Json& maxima = json.at("maxima");
  map.maxima.hidden = dimension(maxima, "d");
  map.maxima.ffn = dimension(maxima, "ffn");
  map.maxima.heads = dimension(maxima, "heads");
  map.maxima.kv_heads = dimension(maxima, "kv_heads");
  map.maxima.head_dim = dimension(maxima, "head_dim");
  map.maxima.batch = dimension(maxima, "batch");
  map.maxima.prefill_rows = dimension(maxima, "prefill_rows");
  map.maxima.context = dimension(maxima, "context");
  map.maxima.vocab = dimension(maxima, "vocabulary");
  const Json& banks = json.at("banks");
  if (banks.empty()) refuse("there are no banks");
  for (const Json& bank : banks) {
    const uint32_t index = static_cast<uint32_t>(map.banks.size());
    number(bank, "index", index, index);
    map.banks.push_back({index, bank.at("tag").get<std::string>(),
                         number(bank, "bytes", 4096, std::numeric_limits<int64_t>::max())});
  }
  for (const Json& kernel : json.at("kernels")) map.kernels.push_back(parse_kernel(kernel, map));
  if (map.kernels.empty()) refuse("there are no kernels");

  // Weights, model and pages are shared by the kernels, so they must agree on the banks.
  const auto& first = map.kernels.front().arguments;
  for (const KernelMap& kernel : map.kernels) {
    for (size_t i = 0; i < first.size(); ++i) {
      const bool shared = i == kModelArgument || i >= kArenas;
      if (shared && kernel.arguments[i].bank != first[i].bank) {
        refuse("the kernels want '" + first[i].name + "' in different banks");
      }
    }
  }
  return map;
}

}  // namespace

const KernelMap* MemoryMap::kernel(std::string_view name) const {
  const auto found = std::find_if(kernels.begin(), kernels.end(),
                                  [&](const KernelMap& kernel) { return kernel.name == name; });
  return found == kernels.end() ? nullptr : &*found;
}

tl::expected<MemoryMap, DeviceError> read_memory_map(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) {
    return tl::unexpected(DeviceError{
        DeviceError::Kind::bad_bitstream,
        "cannot read the memory map " + path.string() +
            ": it is written beside the bitstream by scripts/accelerator.py --memory-map"});
  }
  try {
    return parse(Json::parse(file));
  } catch (const std::exception& error) {
    return tl::unexpected(
        DeviceError{DeviceError::Kind::bad_bitstream,
                    path.string() + " is not the memory map of an accelerator: " + error.what()});
  }
}

}  // namespace flexllm::host
