// The one shape of an error that a client sees. A plain value: made wherever a request fails,
// rendered by the HTTP side, in a reply or, once a stream has begun, in its last event.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace flexllm::server {

struct ApiError {
  unsigned status = 500;
  std::string type = "server_error";
  std::string message;  // for the client: no internals, no prompt
  std::string param;    // the field at fault, "messages[0].role"; empty: null
  std::string code;     // for programs; empty: null
  std::vector<std::pair<std::string, uint64_t>> numbers;  // further members of the error object
  unsigned retry_after_s = 0;                             // 0: no Retry-After header
};

ApiError invalid_request(std::string param, std::string message,
                         std::string code = "invalid_value");                  // 400
ApiError context_exceeded(uint64_t n_prompt_tokens, uint64_t n_ctx);           // 400
ApiError not_found(std::string message, std::string param, std::string code);  // 404
ApiError queue_full();                                                         // 429
ApiError not_supported(std::string param, std::string message);                // 501
ApiError unavailable(std::string message, std::string code);                   // 503
ApiError device_lost();                                                        // 503
ApiError internal_error();                                                     // 500

// {"error": {"message", "type", "param", "code", ...}}
std::string to_json(const ApiError& error);

}  // namespace flexllm::server
