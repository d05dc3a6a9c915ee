#include "server/api/error.h"

#include <nlohmann/json.hpp>

#include "server/api/json.h"

namespace flexllm::server {

ApiError invalid_request(std::string param, std::string message, std::string code) {
  return {.status = 400,
          .type = "invalid_request_error",
          .message = std::move(message),
          .param = std::move(param),
          .code = std::move(code),
          .numbers = {}};
}

ApiError context_exceeded(uint64_t n_prompt_tokens, uint64_t n_ctx) {
  return {.status = 400,
          .type = "exceed_context_size_error",
          .message = "The prompt has " + std::to_string(n_prompt_tokens) +
                     " tokens and must leave room for an answer in a context of " +
                     std::to_string(n_ctx) + " tokens.",
          .param = "prompt",
          .code = "context_length_exceeded",
          .numbers = {{"n_prompt_tokens", n_prompt_tokens}, {"n_ctx", n_ctx}}};
}

ApiError not_found(std::string message, std::string param, std::string code) {
  return {.status = 404,
          .type = "not_found_error",
          .message = std::move(message),
          .param = std::move(param),
          .code = std::move(code),
          .numbers = {}};
}

ApiError queue_full() {
  return {.status = 429,
          .type = "rate_limit_error",
          .message = "The queue is full. Try again in a moment.",
          .param = {},
          .code = "queue_full",
          .numbers = {},
          .retry_after_s = 1};
}

ApiError not_supported(std::string param, std::string message) {
  return {.status = 501,
          .type = "not_supported_error",
          .message = std::move(message),
          .param = std::move(param),
          .code = "not_supported",
          .numbers = {}};
}

ApiError unavailable(std::string message, std::string code) {
  return {.status = 503,
          .type = "unavailable_error",
          .message = std::move(message),
          .param = {},
          .code = std::move(code),
          .numbers = {},
          .retry_after_s = 5};
}

ApiError device_lost() { return unavailable("The accelerator does not answer.", "device_lost"); }

ApiError internal_error() {
  return {.status = 500,
          .type = "server_error",
          .message = "The server failed to process this request.",
          .param = {},
          .code = "internal_error",
          .numbers = {}};
}

std::string to_json(const ApiError& error) {
  auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json body = {{"message", error.message},
                                 {"type", error.type},
                                 {"param", or_null(error.param)},
                                 {"code", or_null(error.code)}};
  for (const auto& [name, number] : error.numbers) body[name] = number;
  return dump({{"error", std::move(body)}});
}

}  // namespace flexllm::server
