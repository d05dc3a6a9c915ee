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
#include "server/api/error.h"
#include "server/api/fields.h"
#include "server/api/json.h"
#include "server/api/response_format.h"
#include "server/api/tools.h"
#include "server/scheduling/generation.h"
#include "server/text/text_model.h"

namespace flexllm::server {

using PromptInput = std::variant<std::string, std::vector<uint32_t>>;

struct ApiRequest {
  bool chat = false;
  std::string model;                  // empty: not named
  std::vector<ChatMessage> messages;  // chat
  std::vector<PromptInput> prompts;   // completions
  GenerationRequest generation;       // without its prompts and its grammar
  ResponseFormat format;
  Tools tools;  // chat
  bool stream = false;
  bool include_usage = false;
};

// What the model and the operator say about requests.
struct RequestLimits {
  formats::GenerationDefaults defaults;  // where a request says nothing
  uint32_t vocab = 0;
  uint32_t max_choices = 128;  // prompts times n
};

inline constexpr size_t kMaxToolCalls = 128;  // of a message
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopCharacters = 512;
inline constexpr uint32_t kDefaultCompletionTokens = 16;
inline constexpr Bounds kTemperature{0, 2};
inline constexpr Bounds kTopP{1e-6, 1};
inline constexpr Bounds kMinP{0, 1};
inline constexpr Bounds kPenalty{-2, 2};
inline constexpr Bounds kRepetitionPenalty{0.01, 10};
inline constexpr Bounds kLogitBias{-100, 100};

tl::expected<ApiRequest, ApiError> parse_chat_request(const RequestBody& body,
                                                      const RequestLimits& limits);
tl::expected<ApiRequest, ApiError> parse_completion_request(const RequestBody& body,
                                                            const RequestLimits& limits);

// The `messages` of a chat; also of /apply-template. Mistakes go to `fields`.
std::vector<ChatMessage> read_messages(Fields& fields);
// A member that is a list of token ids below `vocab`, if it is there; also of /detokenize.
void read_token_ids(Fields& fields, const char* name, uint32_t vocab, std::vector<uint32_t>& out);

}  // namespace flexllm::server
