// The program `flexllm`.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/exit_code.h"
#include "cli/nearest.h"
#include "cli/subcommand.h"

namespace flexllm::cli {
namespace {

constexpr Subcommand kSubcommands[] = {
    {"serve", "Serve a model over the OpenAI API", add_serve},
    {"chat", "Talk with a served model", add_chat},
    {"run", "Answer one prompt", add_run},
    {"quantize", "Pack a checkpoint for a card", add_quantize},
    {"learn-rotations", "Learn the rotations that suit a checkpoint and a scheme",
     add_learn_rotations},
    {"perplexity", "Measure how well a model predicts a text", add_perplexity},
    {"compare", "Measure how far a model is from another on a text", add_compare},
    {"plan", "Model the speed and size of an accelerator", add_plan},
    {"bench", "Measure how a server answers a load", add_bench},
    {"doctor", "Examine the card, its driver and its bitstream", add_doctor},
};

void refuse_unknown_subcommand(std::string_view word) {
  if (word.starts_with('-')) return;
  std::string known;
  for (const auto& subcommand : kSubcommands) {
    if (word == subcommand.name) return;
    known += (known.empty() ? "" : ", ") + std::string(subcommand.name);
  }
  throw Failure(kUsage, "there is no subcommand '" + std::string(word) + "' (" + known + ")");
}

void refuse_unknown_options(const CLI::App& subcommand) {
  std::vector<std::string> names;
  for (const CLI::Option* option : subcommand.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (const auto& word : subcommand.remaining()) {
    if (!word.starts_with("--")) continue;
    const std::string name = word.substr(0, word.find('='));
    throw Failure(kUsage, "there is no option " + name + suggestion(name, names) +
                              "; see flexllm " + subcommand.get_name() + " --help");
  }
}

int run(int argc, char** argv) {
  if (argc > 1) refuse_unknown_subcommand(argv[1]);
  CLI::App app("FlexLLM: language models on an FPGA", "flexllm");
  app.set_version_flag("--version", "flexllm " FLEXLLM_VERSION);
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, Run>> runs;
  for (const auto& subcommand : kSubcommands) {
    CLI::App* added = app.add_subcommand(subcommand.name, subcommand.summary);
    runs.emplace_back(added, subcommand.add(*added));
  }
  try {
    app.parse(argc, argv);
    for (const auto& [subcommand, body] : runs) {
      if (subcommand->parsed()) return body();
    }
  } catch (const CLI::ExtrasError& error) {
    for (const auto& [subcommand, body] : runs) {
      if (subcommand->parsed()) refuse_unknown_options(*subcommand);
    }
    return app.exit(error) == 0 ? kOk : kUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  return kUsage;
}

}  // namespace
}  // namespace flexllm::cli

int main(int argc, char** argv) {
  try {
    return flexllm::cli::run(argc, argv);
  } catch (const flexllm::cli::Failure& failure) {
    std::fprintf(stderr, "flexllm: %s\n", failure.what());
    return failure.code;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "flexllm: %s\n", failure.what());
    return flexllm::cli::kFailed;
  }
}
