// The bodies of /v1/chat/completions and /v1/completions as typed requests. A field is served, or
// refused by its name; none is ignored. Pure functions, called by HTTP threads.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <variant>
#include <vector>

#include "formats/model_config.h"
#include "server/error.h"
#include "server/generation.h"
#include "server/text_model.h"

namespace flexllm::server {

using PromptInput = std::variant<std::string, std::vector<uint32_t>>;

struct ApiRequest {
  bool chat = false;
  std::string model;                  // empty: not named
  std::vector<ChatMessage> messages;  // chat
  std::vector<PromptInput> prompts;   // completions
  GenerationRequest generation;       // without its prompts
  bool stream = false;
  bool include_usage = false;
};

// What the model and the operator say about requests.
struct RequestLimits {
  formats::GenerationDefaults defaults;  // where a request says nothing
  uint32_t vocab = 0;
  uint32_t max_choices = 128;  // prompts times n
};

inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 512;
inline constexpr uint32_t kDefaultCompletionTokens = 16;

tl::expected<ApiRequest, ApiError> parse_chat_request(const nlohmann::json& body,
                                                      const RequestLimits& limits);
tl::expected<ApiRequest, ApiError> parse_completion_request(const nlohmann::json& body,
                                                            const RequestLimits& limits);

// The `messages` of a chat; also of /apply-template. Mistakes go to `fields`.
class Fields;
std::vector<ChatMessage> read_messages(Fields& fields);

}  // namespace flexllm::server
