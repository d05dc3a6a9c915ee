// Writes answers in OpenAI's shapes, whole and in chunks. One per request, used by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "server/api/tool_calls.h"
#include "server/scheduling/generation.h"
#include "server/text/text_model.h"

namespace flexllm::server {

struct ResponseHead {
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // Unix time, seconds
  std::string model;
  bool chat = false;
  bool include_usage = false;    // streams: one more chunk with it
  std::optional<ToolUse> tools;  // calls of these are looked for in the text
};

class ResponseWriter {
 public:
  ResponseWriter(ResponseHead head, uint32_t choices, std::shared_ptr<const TextModel> text);

  // The events of a stream. The pieces of all deltas, joined, are what whole() gives.
  std::string events(const Delta& delta);
  std::string events(const Usage& usage);  // the end: usage if asked for, and [DONE]
  static std::string events(const ApiError& error);
  static std::string comment();

  // The whole answer: add() each delta, then whole().
  void add(Delta delta);
  std::string whole(const Usage& usage);

 private:
  using Json = nlohmann::ordered_json;
  struct Choice {
    bool begun = false;  // its first chunk, with the role, is out
    std::string text;
    std::vector<TokenRecord> tokens;
    bool has_logprobs = false;
    std::optional<FinishReason> finish;
    std::optional<ToolCallParser> parser;
    size_t calls = 0;  // that were found
  };

  Json envelope(const char* object) const;
  Json chunk(uint32_t index, Json content, Json logprobs, const char* finish) const;
  std::string text_event(uint32_t index, const std::string& text);
  Json message(uint32_t index);
  Json call_json(uint32_t index, const ToolCall& call, bool streamed);
  static const char* finish_of(const Choice& choice);
  Json logprobs(const std::vector<TokenRecord>& tokens) const;
  Json token_entry(uint32_t token, std::optional<float> logprob) const;
  static Json usage_json(const Usage& usage);
  static Json timings_json(const Timings& timings);

  const ResponseHead head_;
  const std::shared_ptr<const TextModel> text_;
  std::vector<Choice> choices_;
  std::string chunk_begin_;         // of text_event()
  std::optional<Timings> timings_;  // once the last delta is known
};

}  // namespace flexllm::server
