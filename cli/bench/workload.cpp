#include "cli/bench/workload.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

namespace flexllm::cli::bench {
namespace {

using nlohmann::json;

// Each with the space before it is one token of SmolLM2's vocabulary (asked of its /tokenize).
constexpr const char* kWords =
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education food ground river "
    "mountain garden window music paper letter picture market street village island winter summer "
    "spring evening doctor engine bridge forest animal horse bird fish tree flower stone metal "
    "glass paint board chair table kitchen dinner bread sugar salt milk fruit apple field farm "
    "road train ship plane machine tool wire light sound voice song dance shape circle square "
    "corner center middle north south east west wind rain snow cloud storm star moon sun earth sea "
    "ocean lake beach sand rock fire smoke ice heat cold ball race sport coach player score goal "
    "match";

const std::vector<std::string>& words() {
  static const std::vector<std::string> list = [] {
    std::istringstream in(kWords);
    std::vector<std::string> out;
    for (std::string word; in >> word;) out.push_back(word);
    return out;
  }();
  return list;
}

// Streams of random numbers: two for arrivals, then two for each request.
constexpr uint64_t kArrivals = 0;
constexpr uint64_t kRequests = 2;

// Nothing: the value can be sent.
std::string what_is_wrong(const json& value, Endpoint endpoint) {
  if (!value.is_object()) return "neither a string nor an object";
  for (const auto& [key, member] : value.items()) {
    if (key == "prompt") {
      if (!member.is_string()) return "\"prompt\" is not a string";
    } else if (key == "messages") {
      if (!member.is_array() || member.empty()) return "\"messages\" is not a list of messages";
    } else if (key == "max_tokens") {
      if (!member.is_number_unsigned() || member == 0 || member > kMostTokens) {
        return fmt::format("\"max_tokens\" is not an integer from 1 to {}", kMostTokens);
      }
    } else {
      return fmt::format("there is no \"{}\" of a prompt", key);
    }
  }
  if (value.contains("prompt") == value.contains("messages")) {
    return "it takes either \"prompt\" or \"messages\"";
  }
  if (endpoint == Endpoint::completions && value.contains("messages")) {
    return "\"messages\" are for --endpoint chat";
  }
  return "";
}

}  // namespace

const char* Workload::path() const {
  return options_.endpoint == Endpoint::chat ? "/v1/chat/completions" : "/v1/completions";
}

Random Workload::arrivals(bool warm_up) const {
  return {options_.seed, kArrivals + (warm_up ? 1 : 0)};
}

json Workload::made_up_prompt(uint32_t tokens, Random& random) const {
  std::string text;
  for (uint32_t i = 0; i < tokens; ++i) {
    if (i > 0) text += ' ';
    text += words()[random.integer(0, words().size() - 1)];
  }
  return {{"prompt", std::move(text)}};
}

PlannedRequest Workload::request(uint64_t number, bool warm_up) const {
  Random random(options_.seed, kRequests + 2 * number + (warm_up ? 1 : 0));
  PlannedRequest out;
  out.output_tokens = options_.output_tokens.sample(random);
  json prompt;
  if (options_.prompts.empty()) {
    out.prompt_tokens = options_.prompt_tokens.sample(random);
    prompt = made_up_prompt(out.prompt_tokens, random);
  } else {
    prompt = options_.prompts[number % options_.prompts.size()];
    out.output_tokens = prompt.value("max_tokens", out.output_tokens);
  }
  json body = {{"model", options_.model}, {"max_tokens", out.output_tokens},
               {"temperature", 0},        {"ignore_eos", true},
               {"stream", true},          {"stream_options", {{"include_usage", true}}}};
  if (options_.endpoint == Endpoint::completions) {
    body["prompt"] = prompt["prompt"];
  } else if (prompt.contains("messages")) {
    body["messages"] = prompt["messages"];
  } else {
    body["messages"] = json::array({{{"role", "user"}, {"content", prompt["prompt"]}}});
  }
  body.merge_patch(options_.fields);
  // A name from the command line need not be UTF-8.
  out.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return out;
}

tl::expected<std::vector<json>, std::string> read_prompts(const std::filesystem::path& path,
                                                          Endpoint endpoint) {
  std::ifstream in(path);
  if (!in) return tl::unexpected(path.string() + ": cannot be read");
  std::vector<json> prompts;
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    json value = json::parse(line, nullptr, false);
    if (value.is_string()) value = {{"prompt", value}};
    const std::string wrong = value.is_discarded() ? "not JSON" : what_is_wrong(value, endpoint);
    if (!wrong.empty()) {
      return tl::unexpected(fmt::format("{}: line {}: {}", path.string(), number, wrong));
    }
    prompts.push_back(std::move(value));
  }
  if (in.bad()) return tl::unexpected(path.string() + ": cannot be read");
  if (prompts.empty()) return tl::unexpected(path.string() + ": holds no prompt");
  return prompts;
}

tl::expected<json, std::string> parse_fields(const std::string& text) {
  if (text.empty()) return json::object();
  json fields = json::parse(text, nullptr, false);
  if (!fields.is_object()) return tl::unexpected(std::string("a JSON object"));
  for (const auto* taken : {"model", "messages", "prompt", "max_tokens", "stream", "n"}) {
    if (fields.contains(taken)) {
      return tl::unexpected(fmt::format("without \"{}\", which the load decides", taken));
    }
  }
  return fields;
}

}  // namespace flexllm::cli::bench
