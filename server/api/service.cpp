#include "server/api/service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "server/api/generation_reply.h"
#include "server/api/json.h"
#include "server/api/openapi/document.h"
#include "server/web/assets.h"

namespace flexllm::server {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kModelsBelow = "/v1/models/";

HttpReply ok(const Json& body) { return {.status = 200, .body = dump(body), .headers = {}}; }

bool iequals(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

bool is_json(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  const size_t end = type.find_last_not_of(" \t");
  const std::string_view trimmed = type.substr(0, end == std::string_view::npos ? 0 : end + 1);
  return iequals(trimmed, kJson);
}

bool matches(std::string_view pattern, std::string_view path) {
  return pattern.size() > 1 && pattern.ends_with('/')
             ? path.starts_with(pattern) && path.size() > pattern.size()
             : path == pattern;
}

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// A page of ours: it came from where its requests go. The scheme is not compared: a proxy may speak
// TLS in front. Names that an attacker lets point here are refused before, by the host alone.
bool same_origin(std::string_view origin, std::string_view host) {
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && !host.empty() &&
         iequals(origin.substr(scheme + 3), host);
}

// Errors of HTTP itself.
HttpReply plain_error(unsigned status, const std::string& message, const char* code = nullptr) {
  ApiError error = invalid_request("", message, "");
  error.status = status;
  switch (status) {
    case 401:
      error.type = "authentication_error";
      error.code = "invalid_api_key";
      break;
    case 403:
      error.type = "permission_error";
      error.code = "origin_not_allowed";
      break;
    case 405:
      error.type = "method_not_allowed";
      error.code = "method_not_allowed";
      break;
    case 503:
      error = unavailable(message, "busy");
      break;
    default:
      break;
  }
  if (code != nullptr) error.code = code;
  return reply_of(error);
}

}  // namespace

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> table = [] {
    std::vector<Route> all = {
        {"GET", "/health", &Service::health, true, false},
        {"GET", "/ready", &Service::ready, true, false},
        {"GET", "/version", &Service::version, false, false},
        {"GET", "/metrics", &Service::metrics, false, false},
        {"GET", "/state", &Service::state, false, false},
        {"GET", "/openapi.json", &Service::openapi, true, false},
        {"GET", "/v1/models", &Service::models, false, true},
        {"GET", kModelsBelow.data(), &Service::one_model, false, true},
        {"POST", "/tokenize", &Service::tokenize, false, true},
        {"POST", "/detokenize", &Service::detokenize, false, true},
        {"POST", "/apply-template", &Service::apply_template, false, true},
        {"POST", "/v1/chat/completions", &Service::chat_completions, false, true},
        {"POST", "/v1/completions", &Service::completions, false, true},
    };
    for (const auto& asset : web::assets()) {
      all.push_back({"GET", asset.path, &Service::page, true, false});
    }
    return all;
  }();
  return table;
}

Service::Service(ServiceOptions options)
    : options_(std::move(options)),
      keys_(std::make_shared<const ApiKeys>(options_.api_keys)),
      metrics_(std::make_shared<Metrics>()) {}

void Service::serve(ServedModel model, std::unique_ptr<Backend> backend,
                    const SchedulerOptions& scheduler_options) {
  auto loaded = std::make_shared<Loaded>();
  loaded->limits = {.defaults = model.defaults,
                    .vocab = std::min(model.text->vocab_size(), backend->limits().vocab),
                    .max_choices = options_.max_choices};
  loaded->created = unix_time();
  for (uint32_t token = 0; token < model.text->vocab_size(); ++token) {
    loaded->longest_token = std::max(loaded->longest_token, model.text->token_name(token).size());
  }
  loaded->grammars = std::make_unique<grammar::GrammarCache>(
      std::make_shared<const grammar::TokenTrie>(*model.text, loaded->limits.vocab));
  loaded->monitor = std::make_unique<DeviceMonitor>(
      backend->telemetry(), metrics_,
      DeviceMonitor::Options{.device = model.device, .emulated = model.emulated, .board = {}});
  loaded->scheduler =
      std::make_unique<Scheduler>(std::move(backend), model.text, metrics_, scheduler_options);
  loaded->model = std::move(model);
  loaded_ = std::move(loaded);
}

void Service::drain(std::chrono::milliseconds limit) {
  draining_ = true;
  if (const auto loaded = loaded_.load()) loaded->scheduler->drain(limit);
}

tl::expected<const Service::Route*, HttpReply> Service::find_route(const HttpRequest& head) {
  const std::string_view method = head.method == "HEAD" ? "GET" : std::string_view(head.method);
  std::set<std::string> allowed;
  for (const auto& route : routes()) {
    if (!matches(route.path, head.path)) continue;
    if (method == route.method) return &route;
    allowed.insert(route.method);
  }
  if (allowed.empty()) {
    return tl::unexpected(reply_of(not_found("There is nothing at this path.", "", "not_found")));
  }
  std::string allow;
  for (const auto& name : allowed) allow += (allow.empty() ? "" : ", ") + name;
  HttpReply reply = plain_error(405, "This path answers to " + allow + ".");
  reply.headers.emplace_back("Allow", allow);
  return tl::unexpected(std::move(reply));
}

std::optional<HttpReply> Service::refuse(HttpRequest& head) {
  const bool page_allowed = allows_origin(head.origin);
  if (head.method == "OPTIONS" && page_allowed) {
    const std::string& wanted = head.requested_headers;
    return HttpReply{.status = 204,
                     .body = {},
                     .content_type = {},
                     .headers = {{"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                                 {"Access-Control-Allow-Headers",
                                  wanted.empty() ? "authorization, content-type" : wanted},
                                 {"Access-Control-Max-Age", "600"}}};
  }
  const auto route = find_route(head);
  const bool open = route && (*route)->open;
  if (!open && !allows_host(head)) {
    return plain_error(403, "The server does not go by this name; see --allowed-host.",
                       "host_not_allowed");
  }
  // Browsers send simple requests without a preflight, also to loopback: not showing the page the
  // answer is not enough, it must not be computed.
  if (!open && !allows_page(head)) {
    return plain_error(403, "Web pages of this origin may not call; see --cors-origin.");
  }
  const auto keys = keys_.load();
  head.key = keys->find(head.authorization);
  if (!open && keys->required() && head.key == 0) {
    return plain_error(401, "A valid API key is required: 'Authorization: Bearer KEY'.");
  }
  if (!route) return route.error();
  if ((*route)->method == std::string_view("POST") && !is_json(head.content_type)) {
    return plain_error(415, "The body must be 'Content-Type: application/json'.");
  }
  return std::nullopt;
}

Answer Service::handle(HttpRequest request) {
  const auto route = find_route(request);
  if (!route) return route.error();
  const auto loaded = loaded_.load();
  if ((*route)->needs_model && !loaded) {
    return reply_of(unavailable("The model is still loading.", "loading"));
  }
  try {
    return (this->*(*route)->handler)(request, loaded.get());
  } catch (const std::exception& failure) {
    spdlog::error("{} {}: {}", request.id, request.path, failure.what());
    return reply_of(internal_error());
  }
}

bool Service::allows_origin(const std::string& origin) const {
  if (origin.empty()) return false;
  return std::any_of(options_.cors_origins.begin(), options_.cors_origins.end(),
                     [&](const auto& allowed) { return allowed == "*" || allowed == origin; });
}

bool Service::allows_page(const HttpRequest& head) const {
  return head.origin.empty() || same_origin(head.origin, head.host) || allows_origin(head.origin);
}

// A page whose name an attacker made to resolve to this machine ("DNS rebinding") has the server's
// own origin, but not its name.
bool Service::allows_host(const HttpRequest& head) const {
  if (!options_.allowed_hosts || head.local || head.host.empty()) return true;
  std::string name = head.host.substr(0, head.host.find(':', head.host.rfind(']') + 1));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto& allowed = *options_.allowed_hosts;
  boost::system::error_code not_an_address;
  const auto address = boost::asio::ip::make_address(
      name.starts_with('[') && name.ends_with(']') ? name.substr(1, name.size() - 2) : name,
      not_an_address);
  return (!not_an_address && address.is_loopback()) || name == "localhost" ||
         name.ends_with(".localhost") ||
         std::find(allowed.begin(), allowed.end(), name) != allowed.end();
}

void Service::set_api_keys(const std::vector<std::string>& keys) {
  keys_ = std::make_shared<const ApiKeys>(keys);
}

std::vector<std::pair<std::string, std::string>> Service::common_headers(
    const HttpRequest& request) {
  std::vector<std::pair<std::string, std::string>> headers = {{"x-request-id", request.id}};
  if (allows_origin(request.origin)) {
    headers.emplace_back("Access-Control-Allow-Origin", request.origin);
    headers.emplace_back("Access-Control-Expose-Headers", "x-request-id");
    headers.emplace_back("Vary", "Origin");
  }
  return headers;
}

HttpReply Service::error(unsigned status, const std::string& message) {
  return plain_error(status, message);
}

Answer Service::health(const HttpRequest&, const Loaded*) { return ok({{"status", "ok"}}); }

Answer Service::ready(const HttpRequest&, const Loaded* loaded) {
  if (draining_) return reply_of(unavailable("The server is shutting down.", "draining"));
  if (loaded == nullptr) return reply_of(unavailable("The model is still loading.", "loading"));
  if (loaded->scheduler->state() != Scheduler::State::ready) {
    return reply_of(unavailable("The accelerator does not answer.", "device_lost"));
  }
  return ok({{"status", "ready"}});
}

Answer Service::version(const HttpRequest&, const Loaded*) {
  return ok({{"version", options_.version}});
}

Answer Service::metrics(const HttpRequest&, const Loaded* loaded) {
  std::string body = metrics_->prometheus();
  if (loaded != nullptr) loaded->monitor->write(body);
  return HttpReply{.status = 200,
                   .body = std::move(body),
                   .content_type = "text/plain; version=0.0.4; charset=utf-8",
                   .headers = {}};
}

Answer Service::openapi(const HttpRequest&, const Loaded* loaded) {
  const RequestLimits unknown{.defaults = {}, .vocab = 0, .max_choices = options_.max_choices};
  return ok(openapi::document(loaded ? loaded->limits : unknown, keys_.load()->required()));
}

Answer Service::models(const HttpRequest&, const Loaded* loaded) {
  return ok({{"object", "list"}, {"data", Json::array({describe(*loaded)})}});
}

Answer Service::one_model(const HttpRequest& request, const Loaded* loaded) {
  if (request.path.substr(kModelsBelow.size()) != loaded->model.name) {
    return reply_of(not_found("There is no such model here.", "model", "model_not_found"));
  }
  return ok(describe(*loaded));
}

nlohmann::ordered_json Service::describe(const Loaded& loaded) {
  return {{"id", loaded.model.name},
          {"object", "model"},
          {"created", loaded.created},
          {"owned_by", "flexllm"},
          {"max_model_len", loaded.scheduler->context_length()}};
}

}  // namespace flexllm::server
