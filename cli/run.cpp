// `flexllm run "prompt"`
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "cli/conversation.h"
#include "cli/device.h"
#include "cli/exit_code.h"
#include "cli/http_client.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/subcommand.h"
#include "server/scheduling/scheduler.h"

namespace flexllm::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RunOptions {
  std::string prompt;
  std::string url;
  std::string ca_file;
  std::string api_key;
  std::string system;
  bool raw = false;
  bool json = false;
  AnswerOptions answer;
  ModelOptions model;
  server::SchedulerOptions scheduler;
  OptionTable table;
};

struct Result {
  std::string text;
  std::string finish_reason;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  double first_token_s = 0;
  double total_s = 0;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Takes the pieces of an answer: prints them, or keeps them for --json.
class Answer {
 public:
  explicit Answer(bool print) : print_(print) {}
  void add(std::string_view piece) {
    if (piece.empty()) return;
    if (result.text.empty()) result.first_token_s = seconds_since(start_);
    result.text += piece;
    if (!print_) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }
  void finish() { result.total_s = seconds_since(start_); }
  Result result;

 private:
  const bool print_;
  const Clock::time_point start_ = Clock::now();
};

Result ask_server(const RunOptions& options) {
  const auto url = parse_url(options.url, options.ca_file);
  if (!url) throw Failure(kUsage, fmt::format("--url {}: {}", options.url, url.error()));
  if (options.raw) throw Failure(kUsage, "--raw needs a model of its own, not --url");
  HttpClient client(*url, options.api_key);
  AnswerOptions answer_options = options.answer;
  // FLEXLLM_MODEL is the file that a server here would load, not a name that this one knows.
  if (options.table.on_command_line("model")) answer_options.model = options.model.model.string();
  Conversation conversation(client, answer_options, options.system);
  Answer answer(!options.json);
  const auto end =
      conversation.ask(options.prompt, [&](std::string_view piece) { answer.add(piece); });
  if (!end) {
    const bool refused = end.error().kind == ClientError::Kind::refused;
    throw Failure(refused ? kRefused : kNetwork,
                  fmt::format("{}: {}", options.url, end.error().message));
  }
  answer.finish();
  answer.result.finish_reason = end->finish_reason;
  if (end->usage.is_object()) {
    answer.result.prompt_tokens = end->usage.value("prompt_tokens", uint64_t{0});
    answer.result.completion_tokens = end->usage.value("completion_tokens", uint64_t{0});
  }
  return answer.result;
}

std::vector<uint32_t> prompt_tokens(const RunOptions& options, const server::TextModel& text) {
  if (options.raw) return text.encode(options.prompt, true);
  if (const std::string& problem = text.chat_problem(); !problem.empty()) {
    throw Failure(kModel, problem + " Use --raw to continue the prompt.");
  }
  server::Chat chat;
  if (!options.system.empty()) chat.messages.push_back(server::said_by("system", options.system));
  chat.messages.push_back(server::said_by("user", options.prompt));
  auto prompt = text.chat_prompt(chat, true);
  if (!prompt) throw Failure(kModel, prompt.error());
  return std::move(prompt->tokens);
}

Result ask_own_model(const RunOptions& options) {
  const host::EngineOptions engine = choose_device(options.model);
  LoadedModel loaded = load_model(options.model, engine);
  const auto text = loaded.served.text;
  server::GenerationRequest request;
  request.prompts = {prompt_tokens(options, *text)};
  if (request.prompts[0].empty()) throw Failure(kUsage, "the prompt is empty");
  const auto& defaults = loaded.served.defaults;
  request.sampling.temperature = options.answer.temperature
                                     ? static_cast<float>(*options.answer.temperature)
                                     : defaults.temperature.value_or(1.0f);
  request.sampling.top_p = defaults.top_p.value_or(1.0f);
  request.sampling.top_k = defaults.top_k.value_or(0);
  request.sampling.repetition_penalty = defaults.repetition_penalty.value_or(1.0f);
  request.max_tokens = options.answer.max_tokens;
  if (options.answer.seed) {
    request.seeded = true;
    request.sampling.seed = static_cast<uint64_t>(*options.answer.seed);
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool ready = false;

  server::SchedulerOptions scheduler_options = options.scheduler;
  scheduler_options.result_bytes = size_t{1} << 30;  // we print as fast as it comes
  server::Scheduler scheduler(std::move(loaded.backend), text, std::make_shared<server::Metrics>(),
                              scheduler_options);
  Answer answer(!options.json);
  auto results = scheduler.submit(std::move(request));
  if (!results) throw Failure(kRefused, results.error().message);
  (*results)->on_ready([&] {
    const std::lock_guard lock(mutex);
    ready = true;
    changed.notify_one();
  });
  bool ended = false;
  while (!ended) {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return std::exchange(ready, false); });
    }
    for (const auto& event : (*results)->take()) {
      if (const auto* delta = std::get_if<server::Delta>(&event)) {
        answer.add(delta->text);
        if (delta->finish) answer.result.finish_reason = server::to_string(*delta->finish);
      } else if (const auto* finished = std::get_if<server::Finished>(&event)) {
        answer.result.prompt_tokens = finished->usage.prompt_tokens;
        answer.result.completion_tokens = finished->usage.completion_tokens;
        ended = true;
      } else {
        throw Failure(kFailed, std::get<server::ApiError>(event).message);
      }
    }
  }
  (*results)->cancel();
  answer.finish();
  return answer.result;
}

int run(RunOptions& options) {
  if (options.table.wants_markdown()) {
    fmt::print("{}", options.table.markdown());
    return kOk;
  }
  options.table.resolve();
  if (options.prompt.empty()) throw Failure(kUsage, "a prompt is required");
  spdlog::set_level(spdlog::level::warn);
  if (options.prompt == "-") {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  const Result result = options.url.empty() ? ask_own_model(options) : ask_server(options);
  if (options.json) {
    const nlohmann::ordered_json report = {{"text", result.text},
                                           {"finish_reason", result.finish_reason},
                                           {"prompt_tokens", result.prompt_tokens},
                                           {"completion_tokens", result.completion_tokens},
                                           {"time_to_first_token_s", result.first_token_s},
                                           {"total_s", result.total_s}};
    fmt::print("{}\n", report.dump(2));
  } else {
    fmt::print("\n");
  }
  return kOk;
}

}  // namespace

Run add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  app.add_option("prompt", options->prompt, "What to answer; '-': read it from stdin");
  app.add_option("--url", options->url, "Ask this server; without it the model is loaded here")
      ->type_name("URL");
  app.add_option("--ca-file", options->ca_file,
                 "PEM certificates to trust for https; by default those of the system")
      ->type_name("PATH")
      ->envname("FLEXLLM_CA_FILE");
  app.add_option("--api-key", options->api_key, "API key of the server; better in the variable")
      ->type_name("KEY")
      ->envname("FLEXLLM_API_KEY");
  app.add_option("--system", options->system, "System message");
  app.add_option("--temperature", options->answer.temperature, "0: always the likeliest token");
  app.add_option("--max-tokens", options->answer.max_tokens, "Longest answer");
  app.add_option("--seed", options->answer.seed, "Makes the answer repeatable");
  app.add_flag("--raw", options->raw, "Continue the prompt, without the chat template");
  app.add_flag("--json", options->json, "Print the answer with its figures as JSON");
  add_model_options(options->table, options->model);
  options->table.group("Scheduling");
  options->table.add("prefill-chunk", options->scheduler.prefill_chunk, 1, 1u << 20,
                     "Tokens of the prompt in one launch");
  options->table.attach(app);
  return [options] { return run(*options); };
}

}  // namespace flexllm::cli
