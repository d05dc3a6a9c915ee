// `flexllm chat`
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cli/conversation.h"
#include "cli/exit_code.h"
#include "cli/http_client.h"
#include "cli/line_editor.h"
#include "cli/subcommand.h"

namespace flexllm::cli {
namespace {

struct ChatOptions {
  std::string url = "http://127.0.0.1:8080";
  std::string ca_file;
  std::string api_key;
  std::string system;
  AnswerOptions answer;
};

constexpr const char* kHelp =
    "/system TEXT   set the system message and begin again (without TEXT: remove it)\n"
    "/clear         begin again\n"
    "/help          this\n"
    "/exit          leave; so does Ctrl-D\n"
    "Ctrl-C stops an answer, or drops the line that is being written.\n";

// Ctrl-C while an answer is written; at the prompt it only interrupts the reading of the line.
std::atomic<HttpClient*> answering{nullptr};
extern "C" void on_interrupt(int) {
  if (HttpClient* client = answering) client->interrupt();
}

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART: a read at the prompt is interrupted
}

[[noreturn]] void give_up(const std::string& url, const ClientError& error) {
  if (error.kind == ClientError::Kind::unreachable) {
    throw Failure(kNetwork, fmt::format("no server answers at {} ({}).\nStart one with: flexllm "
                                        "serve --model MODEL",
                                        url, error.message));
  }
  throw Failure(error.kind == ClientError::Kind::refused ? kRefused : kNetwork, error.message);
}

// True: the line was a command. `leave` is set by /exit.
bool command(const std::string& line, Conversation& conversation, bool& leave) {
  if (!line.starts_with('/')) return false;
  const size_t space = line.find(' ');
  const std::string name = line.substr(0, space);
  const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
  if (name == "/exit" || name == "/quit") {
    leave = true;
  } else if (name == "/clear") {
    conversation.clear();
  } else if (name == "/system") {
    conversation.set_system(rest);
  } else if (name == "/help") {
    fmt::print("{}", kHelp);
  } else {
    fmt::print(stderr, "there is no command {}; see /help\n", name);
  }
  return true;
}

int chat(const ChatOptions& options) {
  const auto url = parse_url(options.url, options.ca_file);
  if (!url) throw Failure(kUsage, fmt::format("--url {}: {}", options.url, url.error()));
  HttpClient client(*url, options.api_key);
  const auto models = client.get("/v1/models");
  if (!models) give_up(options.url, models.error());

  Conversation conversation(client, options.answer, options.system);
  const auto folder = state_folder();
  LineEditor editor("> ", folder.empty() ? folder : folder / "chat_history");
  catch_interrupts();
  if (editor.interactive()) {
    const auto& data = models->value("data", nlohmann::json::array());
    const std::string served = data.empty() ? "a model" : data.front().value("id", "a model");
    fmt::print("Talking with {} at {}; /help says what can be typed.\n",
               options.answer.model.empty() ? served : options.answer.model, options.url);
  }
  bool leave = false;
  while (!leave) {
    const auto line = editor.read();
    if (!line) break;
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (command(*line, conversation, leave)) continue;
    answering = &client;
    const auto end = conversation.ask(*line, [](std::string_view piece) {
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    });
    answering = nullptr;
    client.forget_interrupt();
    fmt::print("\n");
    if (end) {
      if (editor.interactive() && end->finish_reason == "length")
        fmt::print("[cut at the limit]\n");
      if (editor.interactive() && end->finish_reason.empty()) fmt::print("[stopped]\n");
    } else if (editor.interactive()) {
      fmt::print(stderr, "flexllm: {}\n", end.error().message);
    } else {
      give_up(options.url, end.error());
    }
  }
  if (editor.interactive() && !leave) fmt::print("\n");
  return kOk;
}

}  // namespace

Run add_chat(CLI::App& app) {
  auto options = std::make_shared<ChatOptions>();
  app.add_option("--url", options->url, "Server to talk with: http://, https:// or unix:PATH")
      ->type_name("URL")
      ->capture_default_str()
      ->envname("FLEXLLM_URL");
  app.add_option("--model", options->answer.model, "Model to ask for; by default the served one")
      ->type_name("NAME");
  app.add_option("--system", options->system, "System message");
  app.add_option("--temperature", options->answer.temperature, "0: always the likeliest token");
  app.add_option("--max-tokens", options->answer.max_tokens, "Longest answer");
  app.add_option("--seed", options->answer.seed, "Makes answers repeatable");
  app.add_option("--ca-file", options->ca_file,
                 "PEM certificates to trust for https; by default those of the system")
      ->type_name("PATH")
      ->envname("FLEXLLM_CA_FILE");
  app.add_option("--api-key", options->api_key, "API key; better in the variable")
      ->type_name("KEY")
      ->envname("FLEXLLM_API_KEY");
  app.footer(kHelp);
  return [options] { return chat(*options); };
}

}  // namespace flexllm::cli
