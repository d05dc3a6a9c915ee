#include "cli/plan_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/companion.h"
#include "cli/exit_code.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;
namespace model = kernels::model;
using Json = nlohmann::json;

constexpr uintmax_t kMostBytes = 1 << 20;
constexpr uint32_t kMostUnits = 1 << 24;  // no dimension or width is larger
constexpr uint32_t kMostBanks = 256;

// An object of a configuration file that knows where it stands and which keys were read.
class Node {
 public:
  Node(fs::path file, std::string where, Json value)
      : file_(std::move(file)), where_(std::move(where)), value_(std::move(value)) {
    if (!value_.is_object()) {
      throw Failure(kUsage, fmt::format("{}: {} is not an object", file_.string(),
                                        where_.empty() ? "the file" : where_));
    }
  }

  [[noreturn]] void fail(const std::string& key, const std::string& why) const {
    throw Failure(kUsage, fmt::format("{}: {}{}{}: {}", file_.string(), where_,
                                      where_.empty() ? "" : ".", key, why));
  }
  bool has(const std::string& key) const { return value_.contains(key); }
  const Json& raw(const std::string& key) {
    read_.insert(key);
    if (!value_.contains(key)) fail(key, "is missing");
    return value_[key];
  }
  std::string text(const std::string& key) {
    const Json& value = raw(key);
    if (!value.is_string()) fail(key, "must be a string");
    return value.get<std::string>();
  }
  uint32_t whole(const std::string& key) {
    const Json& value = raw(key);
    if (!value.is_number_unsigned() || value.get<uint64_t>() < 1 ||
        value.get<uint64_t>() > kMostUnits) {
      fail(key, fmt::format("must be a whole number from 1 to {}", kMostUnits));
    }
    return value.get<uint32_t>();
  }
  uint64_t bytes(const std::string& key) {
    const Json& value = raw(key);
    if (!value.is_number_unsigned() || value.get<uint64_t>() == 0) {
      fail(key, "must be a whole number above 0");
    }
    return value.get<uint64_t>();
  }
  double number(const std::string& key) {
    const Json& value = raw(key);
    if (!value.is_number() || !(value.get<double>() > 0)) fail(key, "must be a number above 0");
    return value.get<double>();
  }
  Node node(const std::string& key) { return {file_, path_of(key), raw(key)}; }
  std::vector<Node> list(const std::string& key) {
    const Json& value = raw(key);
    if (!value.is_array()) fail(key, "must be a list");
    std::vector<Node> nodes;
    for (size_t i = 0; i < value.size(); ++i) {
      nodes.emplace_back(file_, fmt::format("{}[{}]", path_of(key), i), value[i]);
    }
    return nodes;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (const auto& item : value_.items()) all.push_back(item.key());
    return all;
  }
  const fs::path& file() const { return file_; }

 private:
  std::string path_of(const std::string& key) const {
    return where_.empty() ? key : where_ + "." + key;
  }

  fs::path file_;
  std::string where_;
  Json value_;
  std::set<std::string> read_;
};

Node open(const fs::path& file) {
  std::error_code error;
  const uintmax_t size = fs::file_size(file, error);
  if (error) throw Failure(kUsage, fmt::format("{}: {}", file.string(), error.message()));
  if (size > kMostBytes) throw Failure(kUsage, fmt::format("{}: is too large", file.string()));
  std::ifstream in(file);
  try {
    return {file, "", Json::parse(in)};
  } catch (const Json::exception& reason) {
    throw Failure(kUsage, fmt::format("{}: is not JSON: {}", file.string(), reason.what()));
  }
}

fs::path find(const std::string& kind, const std::string& name) {
  if (name.find('/') != std::string::npos || name.ends_with(".json")) return name;
  const fs::path folder = companion(fs::path("share/flexllm/configs") / kind);
  if (folder.empty()) {
    throw Failure(kFailed, fmt::format("share/flexllm/configs/{} is not beside the program", kind));
  }
  fs::path file = folder / (name + ".json");
  if (fs::exists(file)) return file;
  std::vector<std::string> known;
  for (const auto& entry : fs::directory_iterator(folder)) known.push_back(entry.path().stem());
  std::sort(known.begin(), known.end());
  throw Failure(kUsage, fmt::format("there is no '{}' in configs/{} ({})", name, kind,
                                    fmt::join(known, ", ")));
}

// The die of each of `count` banks: one for all, one for each, or none.
std::vector<std::string> read_slrs(Node& node, uint32_t count) {
  if (!node.has("slr")) return std::vector<std::string>(count);
  const Json& value = node.raw("slr");
  if (value.is_string()) return std::vector<std::string>(count, value.get<std::string>());
  const bool strings =
      value.is_array() && value.size() == count &&
      std::all_of(value.begin(), value.end(), [](const Json& entry) { return entry.is_string(); });
  if (!strings) node.fail("slr", fmt::format("must be a die, or a list of {}", count));
  return value.get<std::vector<std::string>>();
}

model::Device read_device(const fs::path& file) {
  Node root = open(file);
  model::Device device;
  device.name = root.text("name");
  device.axi_ports = root.whole("axi_ports");
  for (Node& node : root.list("memories")) {
    const std::string tag = node.text("tag");
    const uint32_t count = node.whole("count");
    if (count > kMostBanks) node.fail("count", "is too large");
    const std::vector<std::string> slrs = read_slrs(node, count);
    for (uint32_t i = 0; i < count; ++i) {
      device.banks.push_back(
          {fmt::format("{}[{}]", tag, i), node.bytes("bytes"), node.number("gb_per_s"), slrs[i]});
    }
  }
  for (Node& node : root.list("resources")) {
    device.slots.push_back(
        {node.text("slot"),
         node.text("slr"),
         {node.number("dsp"), node.number("bram18"), node.number("uram"), node.number("lut")}});
  }
  if (device.slots.empty()) root.fail("resources", "names no slot");
  return device;
}

using Banks = std::map<std::string, std::vector<uint32_t>>;

// "HBM[20]" or "HBM[0:15]".
std::vector<uint32_t> read_banks(Node& node, const std::string& key, const model::Device& device) {
  const std::string text = node.text(key);
  char tag[32];
  uint32_t first = 0;
  uint32_t last = 0;
  int used = 0;
  if (std::sscanf(text.c_str(), "%31[A-Za-z0-9_][%3u:%3u]%n", tag, &first, &last, &used) != 3 ||
      static_cast<size_t>(used) != text.size()) {
    used = 0;
    if (std::sscanf(text.c_str(), "%31[A-Za-z0-9_][%3u]%n", tag, &first, &used) != 2 ||
        static_cast<size_t>(used) != text.size()) {
      node.fail(key, fmt::format("'{}' is not a bank, as in HBM[3] or HBM[0:15]", text));
    }
    last = first;
  }
  if (last < first) node.fail(key, fmt::format("'{}' names no bank", text));
  std::vector<uint32_t> banks;
  for (uint32_t i = first; i <= last; ++i) {
    const std::string wanted = fmt::format("{}[{}]", tag, i);
    const auto found = std::find_if(device.banks.begin(), device.banks.end(),
                                    [&](const model::Bank& bank) { return bank.tag == wanted; });
    if (found == device.banks.end()) {
      node.fail(key, fmt::format("device '{}' has no bank {}", device.name, wanted));
    }
    banks.push_back(static_cast<uint32_t>(found - device.banks.begin()));
  }
  return banks;
}

void read_all_banks(Node node, const model::Device& device, Banks& banks) {
  for (const std::string& key : node.keys()) banks[key] = read_banks(node, key, device);
}

const std::vector<uint32_t>& banks_of(const Banks& banks, const std::string& argument,
                                      const Node& node) {
  const auto found = banks.find(argument);
  if (found == banks.end()) node.fail("banks", fmt::format("'{}' is on no bank", argument));
  return found->second;
}

void read_ports(Node& node, const Banks& banks, model::Kernel& kernel) {
  for (Node& entry : node.list("ports")) {
    const std::string name = entry.text("name");
    const uint32_t bits = entry.whole("bits");
    const Json& arguments = entry.raw("arguments");
    if (arguments.is_string()) {
      const std::vector<uint32_t>& arenas = banks_of(banks, arguments.get<std::string>(), node);
      const uint32_t bundles = entry.whole("bundles");
      if (arenas.size() % bundles != 0) {
        entry.fail("bundles",
                   fmt::format("{} does not divide the {} arenas", bundles, arenas.size()));
      }
      for (uint32_t i = 0; i < bundles; ++i) {
        model::Port port{fmt::format("{}{}", name, i), bits, {}};
        for (size_t arena = i; arena < arenas.size(); arena += bundles) {
          port.banks.push_back(arenas[arena]);
        }
        kernel.ports.push_back(std::move(port));
      }
      continue;
    }
    if (!arguments.is_array()) entry.fail("arguments", "must be a list or the name of arenas");
    model::Port port{name, bits, {}};
    for (const Json& argument : arguments) {
      if (!argument.is_string()) entry.fail("arguments", "must be names");
      port.banks.push_back(banks_of(banks, argument.get<std::string>(), node).front());
    }
    kernel.ports.push_back(std::move(port));
  }
}

model::Kernel read_kernel(const std::string& name, Node node, Banks banks, double clock_mhz,
                          const model::Device& device, const model::Maxima& maxima) {
  model::Kernel kernel;
  kernel.name = name;
  kernel.stage = name == "prefill" ? model::Stage::prefill : model::Stage::decode;
  kernel.clock_mhz = node.has("clock_mhz") ? node.number("clock_mhz") : clock_mhz;
  if (node.has("banks")) read_all_banks(node.node("banks"), device, banks);
  const std::string composition = node.has("composition") ? node.text("composition") : "temporal";
  if (composition != "temporal" && composition != "spatial") {
    node.fail("composition", fmt::format("'{}' is not temporal or spatial", composition));
  }
  kernel.spatial = composition == "spatial";
  if (node.has("slr")) {
    kernel.slr = node.text("slr");
    if (std::none_of(device.slots.begin(), device.slots.end(),
                     [&](const model::Slot& slot) { return slot.slr == kernel.slr; })) {
      node.fail("slr", fmt::format("device '{}' has no slot on '{}'", device.name, kernel.slr));
    }
  }
  Node parallel = node.node("parallelism");
  kernel.tp = parallel.whole("tp");
  kernel.bp = parallel.whole("bp");
  kernel.wp = parallel.whole("wp");
  kernel.heads = parallel.whole("heads");
  kernel.kv = parallel.whole("kv");
  kernel.outputs = parallel.whole("outputs");
  const uint32_t rows = kernel.stage == model::Stage::prefill ? maxima.prefill_rows : maxima.batch;
  kernel.panel = parallel.has("panel") ? parallel.whole("panel") : rows;
  if (kernel.panel > rows) {
    parallel.fail("panel",
                  fmt::format("{} is more than the {} rows of a launch", kernel.panel, rows));
  }
  if (kernel.panel < rows && (kernel.panel < 16 || !std::has_single_bit(kernel.panel))) {
    parallel.fail("panel", fmt::format("{} is no power of two from 16 on", kernel.panel));
  }
  if (kernel.panel < rows && kernel.spatial) {
    parallel.fail("panel", "a spatial composition keeps all rows of a launch");
  }
  if (16 % kernel.tp != 0) parallel.fail("tp", fmt::format("{} does not divide 16", kernel.tp));
  if (kernel.wp < 8 || kernel.wp > 128 || 128 % kernel.wp != 0) {
    parallel.fail("wp", fmt::format("{} is not one of 8, 16, 32, 64, 128", kernel.wp));
  }
  if (kernel.outputs > 32 || 32 % kernel.outputs != 0) {
    parallel.fail("outputs", fmt::format("{} does not divide 32", kernel.outputs));
  }
  kernel.weight_banks = banks_of(banks, "w", node);
  kernel.kv_banks = banks_of(banks, "kv", node);
  read_ports(node, banks, kernel);
  if (kernel.bp % kernel.weight_ports() != 0) {
    parallel.fail("bp", fmt::format("{} arrays are no multiple of the {} weight ports", kernel.bp,
                                    kernel.weight_ports()));
  }
  return kernel;
}

// `biased`: q, k and v have a bias.
void set_precisions(model::ModelShape& shape, const quantizer::Scheme& scheme, bool biased) {
  using quantizer::MatrixKind;
  try {
    scheme.check_layers(shape.layers);
  } catch (const std::invalid_argument& refused) {
    throw Failure(kUsage, std::string("--scheme: ") + refused.what());
  }
  constexpr MatrixKind kKinds[] = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                                   MatrixKind::down};
  for (const model::Matrix matrix : model::kLayerMatrices) {
    const MatrixKind kind = kKinds[static_cast<size_t>(matrix)];
    std::map<quantizer::MatrixPrecision, uint32_t> counts;
    for (uint32_t layer = 0; layer < shape.layers; ++layer) ++counts[scheme.of({layer, kind})];
    for (const auto& [precision, layers] : counts) {
      shape.linears.at(static_cast<size_t>(matrix))
          .push_back({precision.encoded(biased && kind == MatrixKind::qkv), layers});
    }
  }
  shape.lm_head = scheme.lm_head.encoded(false);
  shape.hadamard_block = 0;
  if (scheme.rotate_down) shape.hadamard_block = std::min(512u, shape.ffn & (0u - shape.ffn));
}

}  // namespace

model::ModelShape read_model_shape(const std::string& name, const quantizer::Scheme& scheme) {
  Node root = open(find("models", name));
  model::ModelShape shape;
  shape.name = root.text("name");
  shape.layers = root.whole("layers");
  shape.hidden = root.whole("d");
  shape.ffn = root.whole("ffn");
  shape.heads = root.whole("heads");
  shape.kv_heads = root.whole("kv_heads");
  shape.head_dim = root.whole("head_dim");
  shape.vocab = root.whole("vocabulary");
  if (shape.hidden % 4 != 0) root.fail("d", "must be a multiple of 4");
  if (shape.ffn % 4 != 0) root.fail("ffn", "must be a multiple of 4");
  if (shape.head_dim % 8 != 0) root.fail("head_dim", "must be a multiple of 8");
  if (shape.heads % shape.kv_heads != 0) root.fail("kv_heads", "does not divide heads");
  set_precisions(shape, scheme, false);
  return shape;
}

model::ModelShape model_shape(const formats::ModelConfig& config, const quantizer::Scheme& scheme) {
  model::ModelShape shape;
  shape.name = config.name;
  shape.layers = config.layers;
  shape.hidden = config.hidden;
  shape.ffn = config.ffn;
  shape.heads = config.heads;
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  shape.vocab = config.vocab;
  set_precisions(shape, scheme, config.attention_bias);
  return shape;
}

model::Accelerator read_accelerator(const std::string& name) {
  const fs::path file = find("accelerators", name);
  Node root = open(file);
  model::Accelerator accelerator;
  accelerator.name = root.text("name");
  const std::string device = root.text("device");
  const fs::path beside = file.parent_path().parent_path() / "devices" / (device + ".json");
  accelerator.device = read_device(fs::exists(beside) ? beside : find("devices", device));
  const double clock_mhz = root.number("clock_mhz");
  Node maxima = root.node("maxima");
  accelerator.maxima = {maxima.whole("d"),
                        maxima.whole("ffn"),
                        maxima.whole("heads"),
                        maxima.whole("kv_heads"),
                        maxima.whole("head_dim"),
                        maxima.whole("batch"),
                        maxima.whole("prefill_rows"),
                        maxima.whole("context"),
                        maxima.whole("vocabulary")};
  Banks banks;
  read_all_banks(root.node("banks"), accelerator.device, banks);
  Node kernels = root.node("kernels");
  for (const char* kernel : {"prefill", "decode"}) {
    if (!kernels.has(kernel)) continue;
    accelerator.kernels.push_back(read_kernel(kernel, kernels.node(kernel), banks, clock_mhz,
                                              accelerator.device, accelerator.maxima));
  }
  if (accelerator.kernels.empty()) root.fail("kernels", "names no kernel");
  return accelerator;
}

PublishedTimes read_published(const std::string& name) {
  Node root = open(find("published", name));
  PublishedTimes out;
  out.model = root.text("model");
  Node prefill = root.node("prefill");
  Node wp = prefill.node("wp");
  Node prompt = prefill.node("published");
  Node decode = root.node("decode");
  Node token = decode.node("published");
  out.design = {prefill.number("clock_mhz"),
                decode.number("clock_mhz"),
                prefill.whole("tp"),
                wp.whole("attention"),
                wp.whole("feed_forward"),
                prefill.whole("kv"),
                decode.whole("bp"),
                decode.whole("wp"),
                decode.whole("heads"),
                decode.whole("kv"),
                decode.whole("vocabulary_rows")};
  out.prompt = prompt.whole("prompt");
  out.prompt_seconds = prompt.number("seconds");
  out.first_position = token.whole("first_position");
  out.last_position = token.whole("last_position");
  out.seconds_per_token = token.number("seconds_per_token");
  return out;
}

}  // namespace flexllm::cli
