// The endpoints. Between sockets (http/server.h) and the scheduler: decides who may ask, turns JSON
// into typed requests and back. Its members may be called from any thread at once; what it serves
// is set once by serve(), until then it answers that it is loading.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "server/api/openai_request.h"
#include "server/grammar/grammar_cache.h"
#include "server/http/api_keys.h"
#include "server/http/types.h"
#include "server/scheduling/scheduler.h"
#include "server/telemetry/device_monitor.h"
#include "server/telemetry/metrics.h"
#include "server/text/text_model.h"

namespace flexllm::server {

struct ServiceOptions {
  std::string version;
  std::vector<std::string> api_keys;  // empty: no key is asked for
  // Names that the Host header may have besides those of loopback; absent: any name.
  std::optional<std::vector<std::string>> allowed_hosts;
  std::vector<std::string> cors_origins;              // pages that may call; "*": all; empty: none
  std::chrono::milliseconds request_timeout{600000};  // of one request, queue included; 0: none
  uint32_t max_choices = 128;                         // prompts times n of one request
};

struct ServedModel {
  std::string name;
  std::shared_ptr<const TextModel> text;
  formats::GenerationDefaults defaults;
  std::string device = "";  // that it is on, in words
  bool emulated = false;    // that device; its speed and sensors say nothing about a card
};

class Service final : public HttpHandler {
 public:
  explicit Service(ServiceOptions options);

  // Begins to serve. Call once.
  void serve(ServedModel model, std::unique_ptr<Backend> backend,
             const SchedulerOptions& scheduler_options);
  // Refuses new work; returns when what runs has ended, after `limit` at the latest.
  void drain(std::chrono::milliseconds limit);

  // From now on these are asked for.
  void set_api_keys(const std::vector<std::string>& keys);

  std::optional<HttpReply> refuse(HttpRequest& head) override;
  Answer handle(HttpRequest request) override;
  std::vector<std::pair<std::string, std::string>> common_headers(
      const HttpRequest& request) override;
  HttpReply error(unsigned status, const std::string& message) override;

 private:
  struct Loaded {
    ServedModel model;
    RequestLimits limits;
    int64_t created = 0;
    size_t longest_token = 1;  // bytes
    std::unique_ptr<grammar::GrammarCache> grammars;
    std::unique_ptr<DeviceMonitor> monitor;
    std::unique_ptr<Scheduler> scheduler;
  };
  using Handler = Answer (Service::*)(const HttpRequest&, const Loaded*);
  struct Route {
    const char* method;
    const char* path;  // ends with '/': all paths below it
    Handler handler;
    bool open = false;         // without a key
    bool needs_model = false;  // 503 while loading
  };
  static const std::vector<Route>& routes();
  // The route, or why there is none.
  static tl::expected<const Route*, HttpReply> find_route(const HttpRequest& head);

  Answer health(const HttpRequest& request, const Loaded* loaded);
  Answer ready(const HttpRequest& request, const Loaded* loaded);
  Answer version(const HttpRequest& request, const Loaded* loaded);
  Answer metrics(const HttpRequest& request, const Loaded* loaded);
  Answer state(const HttpRequest& request, const Loaded* loaded);
  Answer page(const HttpRequest& request, const Loaded* loaded);
  Answer openapi(const HttpRequest& request, const Loaded* loaded);
  Answer models(const HttpRequest& request, const Loaded* loaded);
  Answer one_model(const HttpRequest& request, const Loaded* loaded);
  Answer tokenize(const HttpRequest& request, const Loaded* loaded);
  Answer detokenize(const HttpRequest& request, const Loaded* loaded);
  Answer apply_template(const HttpRequest& request, const Loaded* loaded);
  Answer chat_completions(const HttpRequest& request, const Loaded* loaded);
  Answer completions(const HttpRequest& request, const Loaded* loaded);
  Answer generate(const HttpRequest& request, const Loaded& loaded, ApiRequest api);

  // Of a text with so many bytes that it has more tokens than the context, whatever they are:
  // counting them would take seconds.
  static std::optional<ApiError> too_long(size_t bytes, const Loaded& loaded);
  static nlohmann::ordered_json describe(const Loaded& loaded);
  bool allows_origin(const std::string& origin) const;
  // Whether the page that asks, if it is one, may.
  bool allows_page(const HttpRequest& head) const;
  bool allows_host(const HttpRequest& head) const;

  const ServiceOptions options_;
  std::atomic<std::shared_ptr<const ApiKeys>> keys_;
  const std::shared_ptr<Metrics> metrics_;
  std::atomic<std::shared_ptr<Loaded>> loaded_;
  std::atomic<bool> draining_{false};
};

}  // namespace flexllm::server
