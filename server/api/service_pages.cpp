// The web pages, and the state that the chat page shows.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/api/generation_reply.h"
#include "server/api/json.h"
#include "server/api/service.h"
#include "server/web/assets.h"

namespace flexllm::server {
namespace {

using Json = nlohmann::ordered_json;

// Everything is from this server and nothing is inline, so that text which a model wrote could
// not do anything even if the page's script took it for HTML.
constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'";

const char* to_string(Scheduler::State state) {
  switch (state) {
    case Scheduler::State::ready:
      return "ready";
    case Scheduler::State::recovering:
      return "recovering";
    case Scheduler::State::lost:
      return "lost";
    case Scheduler::State::draining:
      return "draining";
    case Scheduler::State::stopped:
      return "stopped";
  }
  return "stopped";
}

}  // namespace

Answer Service::page(const HttpRequest& request, const Loaded*) {
  const auto assets = web::assets();
  const auto asset = std::find_if(assets.begin(), assets.end(),
                                  [&](const web::Asset& a) { return request.path == a.path; });
  if (asset == assets.end()) {
    return reply_of(not_found("There is nothing at this path.", "", "not_found"));
  }
  HttpReply reply{.status = 200,
                  .body = std::string(asset->body),
                  .content_type = std::string(asset->content_type),
                  .headers = {{"ETag", std::string(asset->etag)},
                              {"Cache-Control", "no-cache"},
                              {"Content-Security-Policy", kContentSecurityPolicy},
                              {"X-Content-Type-Options", "nosniff"},
                              {"Referrer-Policy", "no-referrer"},
                              {"Cross-Origin-Opener-Policy", "same-origin"},
                              {"Cross-Origin-Resource-Policy", "same-origin"}}};
  if (request.if_none_match.find(asset->etag) != std::string::npos) {
    reply.status = 304;
    reply.body.clear();
    reply.content_type.clear();
  }
  return reply;
}

Answer Service::state(const HttpRequest&, const Loaded* loaded) {
  Json body = {{"status", "loading"},
               {"version", options_.version},
               {"model", nullptr},
               {"max_model_len", nullptr},
               {"device", nullptr}};
  DeviceMonitor::Lately lately;
  const auto known = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json();
  };
  if (loaded != nullptr) {
    body["status"] = to_string(loaded->scheduler->state());
    body["model"] = loaded->model.name;
    body["max_model_len"] = loaded->scheduler->context_length();
    lately = loaded->monitor->lately();
    body["device"] = {{"name", loaded->model.device},
                      {"emulated", loaded->model.emulated},
                      {"power_watts", known(lately.board.watts)},
                      {"temperature_celsius", known(lately.board.celsius)},
                      {"joules_per_token", known(lately.joules_per_token)}};
  }
  body["requests"] = {{"running", metrics_->requests_running.load()},
                      {"waiting", metrics_->requests_waiting.load()}};
  body["sequences"] = {{"running", metrics_->sequences_running.load()},
                       {"max", loaded == nullptr ? 0 : loaded->scheduler->max_sequences()}};
  body["kv_pages"] = {{"used", metrics_->kv_pages_used.load()},
                      {"total", metrics_->kv_pages_total.load()}};
  body["tokens_per_second"] = known(lately.tokens_per_second);
  body["generated_tokens"] = metrics_->generated_tokens.load();
  return HttpReply{.status = 200,
                   .body = dump(body),
                   .content_type = "application/json",
                   .headers = {{"Cache-Control", "no-store"}}};
}

}  // namespace flexllm::server
