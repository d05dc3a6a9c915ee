// A conversation with a served model: its messages, and the answer to the next one as it is
// written. Used by one thread.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "cli/http_client.h"

namespace flexllm::cli {

// What a request says beside its messages; absent members are the server's choice.
struct AnswerOptions {
  std::string model;
  std::optional<double> temperature;
  std::optional<uint32_t> max_tokens;
  std::optional<int64_t> seed;
};

struct AnswerEnd {
  std::string finish_reason;  // "stop", "length"; empty if it was interrupted
  nlohmann::json usage;       // as the server told, or null
};

class Conversation {
 public:
  Conversation(HttpClient& client, AnswerOptions options, std::string system);

  // Asks `text` and calls `show` with each piece of the answer. What was shown of an answer that
  // was interrupted stays in the conversation; a message that failed does not.
  tl::expected<AnswerEnd, ClientError> ask(const std::string& text,
                                           const std::function<void(std::string_view)>& show);
  void clear();
  // Changes the system message, and begins again.
  void set_system(std::string system);
  const nlohmann::json& messages() const { return messages_; }

 private:
  HttpClient& client_;
  const AnswerOptions options_;
  std::string system_;
  nlohmann::json messages_;
};

}  // namespace flexllm::cli
