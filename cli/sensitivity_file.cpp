#include "cli/sensitivity_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/exit_code.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double finite(const json& value) {
  const double number = value.get<double>();
  if (!std::isfinite(number)) throw std::invalid_argument("a figure that is not finite");
  return number;
}

quantizer::Sensitivities parse(const json& figures, const std::vector<quantizer::MatrixId>& ids) {
  quantizer::Sensitivities found;
  found.high = finite(figures.at("high"));
  const json& matrices = figures.at("matrices");
  if (matrices.size() != ids.size()) throw std::invalid_argument("another number of matrices");
  for (size_t i = 0; i < ids.size(); ++i) {
    const json& entry = matrices.at(i);
    if (entry.at("layer") != ids[i].layer || entry.at("kind") != name_of(ids[i].kind)) {
      throw std::invalid_argument("matrices in another order");
    }
    found.matrices.push_back({ids[i], finite(entry.at("divergence"))});
  }
  return found;
}

}  // namespace

SensitivityFile::SensitivityFile(fs::path path, std::map<std::string, std::string> of)
    : path_(std::move(path)), of_(std::move(of)) {}

std::optional<quantizer::Sensitivities> SensitivityFile::load(
    const std::vector<quantizer::MatrixId>& ids) const {
  if (path_.empty()) return std::nullopt;
  const auto refuse = [&](const std::string& why) {
    return Failure(kUsage, fmt::format("--sensitivity: {} {}", path_.string(), why));
  };
  std::error_code error;
  if (!fs::exists(path_, error)) {
    if (!fs::is_directory(fs::absolute(path_).parent_path(), error)) throw refuse("has no folder");
    return std::nullopt;
  }
  std::ifstream file(path_);
  if (!file || !fs::is_regular_file(path_, error)) throw refuse("cannot be read");
  std::map<std::string, std::string> of;
  std::optional<quantizer::Sensitivities> found;
  try {
    const json content = json::parse(file);
    of = content.at("of").get<std::map<std::string, std::string>>();
    if (of == of_) found = parse(content.at("sensitivities"), ids);
  } catch (const std::exception& reason) {
    throw refuse(fmt::format("is damaged: {}", reason.what()));
  }
  for (const auto& [name, value] : of_) {
    if (of[name] != value) {
      throw refuse(fmt::format("is of another {} (\"{}\", not \"{}\"); name another file", name,
                               of[name], value));
    }
  }
  return found;
}

void SensitivityFile::save(const quantizer::Sensitivities& found) const {
  if (path_.empty()) return;
  const fs::path aside = fmt::format("{}.{}", path_.string(), ::getpid());
  std::ofstream file(aside);
  file << json{{"figures", "measured"}, {"of", of_}, {"sensitivities", to_json(found)}}.dump(1)
       << '\n';
  file.close();
  std::error_code error;
  if (file) fs::rename(aside, path_, error);
  if (!file || error) {
    fs::remove(aside, error);
    throw Failure(kFailed, path_.string() + ": cannot be written");
  }
}

json to_json(const quantizer::Sensitivities& found) {
  json matrices = json::array();
  for (const quantizer::Sensitivity& sensitivity : found.matrices) {
    matrices.push_back({{"layer", sensitivity.id.layer},
                        {"kind", name_of(sensitivity.id.kind)},
                        {"divergence", sensitivity.divergence}});
  }
  return {{"high", found.high}, {"matrices", std::move(matrices)}};
}

}  // namespace flexllm::cli
