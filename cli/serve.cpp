// `flexllm serve`
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <boost/asio/ip/address.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/descriptor_limit.h"
#include "cli/device.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/signals.h"
#include "cli/subcommand.h"
#include "cli/systemd.h"
#include "server/http/api_keys.h"
#include "server/http/server.h"

namespace flexllm::cli {
namespace {

struct ServeOptions {
  ModelOptions model;
  server::SchedulerOptions scheduler;
  server::HttpOptions http;
  server::ServiceOptions service;
  std::filesystem::path api_key_file;
  std::vector<std::string> api_keys;
  std::vector<std::string> allowed_hosts;
  std::chrono::milliseconds drain_timeout{60000};
  std::string log_level = "info";
  std::filesystem::path trace_file;
  uint64_t trace_max_bytes = 1u << 30;
  OptionTable table;
};

void declare(ServeOptions& options) {
  OptionTable& table = options.table;
  add_model_options(table, options.model);
  add_scheduler_options(table, options.scheduler);

  table.group("Network");
  auto& http = options.http;
  table.add("host", http.host, "Address to listen on");
  table.add("port", http.port, 0, 65535, "0: any free one; off: no TCP, only --unix-socket");
  table.add("tls-certificate", http.tls_certificate,
            "PEM certificate with its chain; with --tls-key the port speaks HTTPS only");
  table.add("tls-key", http.tls_key, "PEM key of the certificate, not encrypted");
  table.add("unix-socket", http.unix_socket, "Also listen on a Unix domain socket at this path");
  table.add_mode("unix-socket-mode", http.unix_socket_mode, "Who may connect to it");
  table.add("http-threads", http.threads, 1, 256, "Threads that read and write");
  table.add("max-connections", http.max_connections, 1, 1u << 20, "Further ones get 503");
  table.add("max-header-bytes", http.max_header_bytes, 1u << 10, 1u << 20, "Larger heads get 431");
  table.add("max-body-bytes", http.max_body_bytes, 1u << 10, 1u << 30, "Larger bodies get 413");
  table.add("handshake-timeout", http.handshake_timeout, kShortestTime, "For TLS to be agreed on");
  table.add("idle-timeout", http.idle_timeout, kShortestTime,
            "For the next request to arrive on a connection");
  table.add("body-timeout", http.body_timeout, kShortestTime, "For a body to arrive");
  table.add("write-timeout", http.write_timeout, kShortestTime,
            "For a reader to take what was written");
  table.add("keep-alive", http.keep_alive, kShortestTime,
            "Silence after which a stream gets a comment line");

  table.group("Access");
  auto& service = options.service;
  table.add("api-key-file", options.api_key_file, "File with one API key a line");
  table.add("api-key", options.api_keys,
            "API keys; others can see a command line, so use the variable or a file");
  table.add(
      "allowed-host", options.allowed_hosts,
      "Host headers to take besides localhost and loopback addresses, where the server listens "
      "on loopback without a key");
  table.add("cors-origin", service.cors_origins,
            "Origins of web pages that may call, or '*'; empty: none");

  table.group("Requests");
  table.add("request-timeout", service.request_timeout, std::chrono::milliseconds(0),
            "For a whole request, with its time in the queue; 0: no limit");
  table.add("max-choices", service.max_choices, 1, 1u << 16, "Prompts times n of one request");
  table.add("drain-timeout", options.drain_timeout, std::chrono::milliseconds(0),
            "For running requests to end after the first SIGTERM; 0: they are ended at once");
  table.add("access-log", http.access_log,
            "JSON lines, one for each answer, in this file; '-': on stderr; SIGHUP opens it anew");
  table.add("log-level", options.log_level, "debug, info, warn, error or off");

  table.group("Telemetry");
  table.add("trace-file", options.trace_file,
            "Write what happens to each request to this file, for Perfetto; empty: do not");
  table.add("trace-max-bytes", options.trace_max_bytes, 1u << 12, UINT64_MAX,
            "Where that file ends");
}

void set_up_log(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw Failure(kUsage, "--log-level must be debug, info, warn, error or off");
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("flexllm"));
  spdlog::set_level(parsed);
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
}

// Those given directly, and those of the file as it is now.
tl::expected<std::vector<std::string>, std::string> read_keys(const ServeOptions& options) {
  std::vector<std::string> keys = options.api_keys;
  if (options.api_key_file.empty()) return keys;
  auto read = server::ApiKeys::read(options.api_key_file);
  if (!read) return tl::unexpected(read.error());
  keys.insert(keys.end(), read->begin(), read->end());
  return keys;
}

// Whoever says anything about keys wants some: a setting that comes to none, such as a variable
// that a script left empty, must not open the server to everybody.
void set_access(ServeOptions& options) {
  if (options.table.given("api-key") && options.api_keys.empty()) {
    throw Failure(kUsage, "--api-key (FLEXLLM_API_KEY) is given and holds no key");
  }
  if (options.table.given("api-key-file") && options.api_key_file.empty()) {
    throw Failure(kUsage, "--api-key-file (FLEXLLM_API_KEY_FILE) is given and names no file");
  }
  auto keys = read_keys(options);
  if (!keys) throw Failure(kUsage, keys.error());
  options.service.api_keys = std::move(*keys);
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(options.http.host, error);
  if (!options.http.port || error || !options.service.api_keys.empty()) return;
  if (address.is_loopback()) {
    options.service.allowed_hosts = options.allowed_hosts;
  } else {
    spdlog::warn("listening on {} without an API key: whoever reaches it may use the model",
                 options.http.host);
  }
}

// What SIGHUP asks for. What is not sound stays as it was.
void reload(const ServeOptions& options, server::Service& service, server::HttpServer& http) {
  std::vector<std::string> failures;
  if (const auto keys = read_keys(options)) {
    service.set_api_keys(*keys);
  } else {
    failures.push_back(keys.error());
  }
  for (const auto& done : {http.reload_tls(), http.reopen_access_log()}) {
    if (!done) failures.push_back(done.error());
  }
  for (const auto& failure : failures) spdlog::error("SIGHUP: {}; it stays as it was", failure);
  if (failures.empty()) spdlog::info("SIGHUP: API keys, certificate and access log are read anew");
}

void check_network(const server::HttpOptions& http) {
  if (http.tls_certificate.empty() != http.tls_key.empty()) {
    throw Failure(kUsage, "--tls-certificate and --tls-key go together");
  }
  if (!http.port && http.unix_socket.empty()) {
    throw Failure(kUsage, "--port off needs --unix-socket");
  }
  if (!http.port && !http.tls_key.empty()) {
    throw Failure(kUsage, "--port off and --tls-key exclude each other");
  }
}

// Where it can be reached, for people.
std::string addresses_of(const server::HttpOptions& http, uint16_t port) {
  std::string places;
  if (http.port) {
    const bool ipv6 = http.host.find(':') != std::string::npos;
    places = fmt::format("{}://{}{}{}:{}/v1", http.tls_key.empty() ? "http" : "https",
                         ipv6 ? "[" : "", http.host, ipv6 ? "]" : "", port);
  }
  if (!http.unix_socket.empty()) {
    places += (places.empty() ? "unix:" : " and unix:") + http.unix_socket.string();
  }
  return places;
}

int serve(ServeOptions& options) {
  if (options.table.wants_markdown()) {
    fmt::print("{}", options.table.markdown());
    return kOk;
  }
  options.table.resolve();
  set_up_log(options.log_level);
  if (options.model.model.empty()) throw Failure(kUsage, "--model is required");
  check_network(options.http);
  set_access(options);
  options.service.version = FLEXLLM_VERSION;
  const host::EngineOptions engine = choose_device(options.model);

  for (const auto& doubt : options.table.doubtful_variables()) spdlog::warn("{}", doubt);
  raise_descriptor_limit();
  if (!options.trace_file.empty()) {
    auto trace = server::Trace::open(options.trace_file, options.trace_max_bytes);
    if (!trace) throw Failure(kUsage, trace.error());
    options.scheduler.trace = std::move(*trace);
  }

  ServerSignals signals;
  auto service = std::make_shared<server::Service>(options.service);
  auto http = server::HttpServer::start(options.http, service);
  if (!http) throw Failure(kNetwork, http.error());
  Systemd systemd;
  LoadedModel loaded = load_model(options.model, engine);
  const std::string name = loaded.served.name;
  loaded.served.emulated = on_emulated_card();
  if (const std::string& problem = loaded.served.text->chat_problem(); !problem.empty()) {
    spdlog::warn("no chats, only completions: {}", problem);
  }
  service->serve(std::move(loaded.served), std::move(loaded.backend), options.scheduler);
  signals.expect();
  const std::string status =
      fmt::format("serving {} at {}", name, addresses_of(options.http, (*http)->port()));
  fmt::print(stderr, "{} (Ctrl-C ends it)\n", status);
  signals.on_hangup([&] {
    systemd.reloading();
    reload(options, *service, **http);
    systemd.ready(status);
  });
  systemd.keep_watch([&](std::chrono::milliseconds limit) { return (*http)->responds(limit); });
  systemd.ready(status);
  signals.wait();
  signals.on_hangup(nullptr);
  systemd.stopping();
  fmt::print(stderr, "stopping when running requests have ended; again to stop now\n");
  service->drain(options.drain_timeout);
  (*http)->finish(options.http.write_timeout);
  return kOk;
}

}  // namespace

Run add_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  declare(*options);
  options->table.attach(app);
  app.footer(
      "Each option is also an environment variable (--max-queue: FLEXLLM_MAX_QUEUE) and a key of\n"
      "the file given with --config (\"max_queue\"). The command line wins, then the environment.");
  return [options] { return serve(*options); };
}

}  // namespace flexllm::cli
