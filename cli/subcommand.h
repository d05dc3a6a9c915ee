// One subcommand of `flexllm`. To add one: a file that defines its add function, a declaration
// here, and a line in the table of main.cpp.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace flexllm::cli {

// Declares the subcommand's options on `app` and returns what to run when it was chosen: a function
// that returns an exit code or throws Failure.
using Run = std::function<int()>;
using AddSubcommand = Run (*)(CLI::App& app);

struct Subcommand {
  const char* name;
  const char* summary;
  AddSubcommand add;
};

Run add_serve(CLI::App& app);
Run add_chat(CLI::App& app);
Run add_run(CLI::App& app);
Run add_quantize(CLI::App& app);
Run add_learn_rotations(CLI::App& app);
Run add_perplexity(CLI::App& app);
Run add_compare(CLI::App& app);
Run add_plan(CLI::App& app);
Run add_bench(CLI::App& app);
Run add_doctor(CLI::App& app);

}  // namespace flexllm::cli
