// Which requests a load consists of, and when they are due. What a request says depends on the seed
// and its number alone, not on how fast the server is. Immutable after it was made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cli/bench/lengths.h"

namespace flexllm::cli::bench {

enum class Endpoint { chat, completions };

struct WorkloadOptions {
  Endpoint endpoint = Endpoint::chat;
  std::string model;
  // Of made-up prompts: so many common words, each of which most vocabularies hold as one token.
  Lengths prompt_tokens;
  Lengths output_tokens;
  std::vector<nlohmann::json> prompts;  // of a file, in order, again and again; empty: made up
  // Merged into each request as RFC 7386 says: null takes a field away.
  nlohmann::json fields = nlohmann::json::object();
  uint64_t seed = 1;
};

struct PlannedRequest {
  std::string body;            // JSON
  uint32_t prompt_tokens = 0;  // words asked for; 0: the prompt is a file's
  uint32_t output_tokens = 0;  // most that the answer may have
};

class Workload {
 public:
  explicit Workload(WorkloadOptions options) : options_(std::move(options)) {}

  // Requests of the warm-up are others than those that are measured.
  PlannedRequest request(uint64_t number, bool warm_up) const;
  // "/v1/chat/completions" or "/v1/completions".
  const char* path() const;
  // Seconds between arrivals of a Poisson process of `rate` a second, from one generator: the gap
  // before each request in turn.
  Random arrivals(bool warm_up) const;

 private:
  nlohmann::json made_up_prompt(uint32_t tokens, Random& random) const;

  const WorkloadOptions options_;
};

// A file of one JSON value a line: a string, or an object with "prompt" (a string) or "messages",
// and "max_tokens" if the answer has its own limit. Each becomes such an object. The error names
// the line.
tl::expected<std::vector<nlohmann::json>, std::string> read_prompts(
    const std::filesystem::path& path, Endpoint endpoint);

// What --fields may say: a JSON object that does not take over what the load decides.
tl::expected<nlohmann::json, std::string> parse_fields(const std::string& text);

}  // namespace flexllm::cli::bench
