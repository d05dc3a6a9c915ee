// `flexllm doctor`: what stands between this program and a working card, and how to mend it.
#include "host/doctor.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/device.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/subcommand.h"

namespace flexllm::cli {
namespace {

struct DoctorOptions {
  ModelOptions model;  // only its device options
  bool selftest = false;
  bool json = false;
  OptionTable table;
};

void print(const std::vector<host::Finding>& findings, bool as_json) {
  if (as_json) {
    nlohmann::json list = nlohmann::json::array();
    for (const host::Finding& finding : findings) {
      list.push_back({{"name", finding.name},
                      {"level", to_string(finding.level)},
                      {"what", finding.what},
                      {"mend", finding.mend}});
    }
    const nlohmann::json report = {{"healthy", host::healthy(findings)}, {"findings", list}};
    fmt::print("{}\n", report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  for (const host::Finding& finding : findings) {
    fmt::print("{:8} {:10} {}\n", to_string(finding.level), finding.name, finding.what);
    if (!finding.mend.empty()) fmt::print("{:19} -> {}\n", "", finding.mend);
  }
}

// The card as asked for. A machine without one is not sent to the emulated card: that it has none
// is the finding, unless the self-test is to run somewhere.
host::EngineOptions device_of(const DoctorOptions& options) {
  const ModelOptions& model = options.model;
  if (options.selftest || model.device == "emulated") return choose_device(model);
  host::EngineOptions engine;
  engine.device = model.device == "auto" ? "0" : model.device;
  engine.bitstream = model.bitstream;
  engine.memory_map = model.memory_map;
  return engine;
}

int examine(DoctorOptions& options) {
  options.table.resolve();
  if (options.table.wants_markdown()) {
    fmt::print("{}", options.table.markdown());
    return kOk;
  }
  const host::EngineOptions engine = device_of(options);
  std::vector<host::Finding> findings = host::examine(engine);
  if (options.selftest && host::healthy(findings)) {
    findings.push_back(host::examine_results(engine));
  }
  print(findings, options.json);
  return host::healthy(findings) ? kOk : kDevice;
}

}  // namespace

Run add_doctor(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  OptionTable& table = options->table;
  table.group("Device");
  table.add("device", options->model.device,
            "'emulated', an index or a PCI address; 'auto': the first card of this machine");
  table.add("bitstream", options->model.bitstream,
            "The card's .xclbin, to be loaded and examined; the emulated card brings its own");
  table.add("memory-map", options->model.memory_map,
            "JSON of the accelerator; empty: beside the bitstream");
  table.group("Examination");
  table.add("selftest", options->selftest,
            "Also run a small model on the card and compare every bit with the reference");
  table.add("json", options->json, "Print the findings as JSON");
  table.attach(app);
  return [options] { return examine(*options); };
}

}  // namespace flexllm::cli
