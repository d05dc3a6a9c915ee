#include "cli/bench/answer_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace flexllm::cli::bench {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestEvent = 16u << 20;
constexpr size_t kLargestRefusal = 64u << 10;
constexpr size_t kLongestWord = 60;  // of a server's answer in what is reported

// Printable ASCII, and not much of it: what a server says goes to a terminal and into a table.
std::string tamed(std::string_view text, size_t most) {
  std::string out;
  for (const char c : text.substr(0, most)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// "KIND TYPE" and the message of an error's body, as far as it has them.
std::pair<std::string, std::string> error_of(std::string kind, const json& body) {
  if (!body.is_object() || !body.contains("error")) return {std::move(kind), ""};
  const json& error = body["error"];
  if (error.is_string()) return {std::move(kind), tamed(error.get<std::string>(), 200)};
  if (!error.is_object()) return {std::move(kind), ""};
  const std::string type = tamed(text_of(error, "type"), kLongestWord);
  if (!type.empty()) kind += " " + type;
  return {std::move(kind), tamed(text_of(error, "message"), 200)};
}

uint32_t count_of(const json& usage, const char* key) {
  const auto found = usage.find(key);
  return found != usage.end() && found->is_number_unsigned() ? found->get<uint32_t>() : 0;
}

bool has_text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() &&
         !found->get_ref<const std::string&>().empty();
}

// Whether a choice of a chunk carries something that the model wrote.
bool carries_text(const json& choice) {
  if (!choice.is_object()) return false;
  if (has_text(choice, "text")) return true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  const auto calls = delta->find("tool_calls");
  return has_text(*delta, "content") || has_text(*delta, "reasoning_content") ||
         (calls != delta->end() && calls->is_array() && !calls->empty());
}

}  // namespace

void AnswerReader::head(unsigned status, std::string_view content_type) {
  status_ = status;
  if (status == 200 && !content_type.starts_with("text/event-stream")) {
    // Reported by finish(): the body may say what went wrong.
    status_ = 0;
    refusal_ = "answered with '" + tamed(content_type, kLongestWord) + "', not an event stream: ";
  }
}

bool AnswerReader::take(std::string_view bytes, double time) {
  if (ended_) return false;
  if (status_ != 200) {
    refusal_ += bytes.substr(0, kLargestRefusal - std::min(kLargestRefusal, refusal_.size()));
    return refusal_.size() < kLargestRefusal;
  }
  since_event_ += bytes.size();
  for (const std::string& data : sse_.feed(bytes)) {
    since_event_ = 0;
    event(data, time);
    if (ended_) return false;
  }
  if (since_event_ > kLargestEvent) fail("malformed", "an event without an end", time);
  return !ended_;
}

void AnswerReader::event(const std::string& data, double time) {
  if (data == "[DONE]") return done(time);
  const json chunk = json::parse(data, nullptr, false);
  if (!chunk.is_object()) {
    return fail("malformed", "not a chunk: '" + tamed(data, kLongestWord) + "'", time);
  }
  if (chunk.contains("error") && !chunk["error"].is_null()) {
    auto [kind, message] = error_of("error in the stream", chunk);
    return fail(std::move(kind), std::move(message), time);
  }
  if (const auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
    outcome_.usage = true;
    outcome_.prompt_tokens = count_of(*usage, "prompt_tokens");
    outcome_.output_tokens = count_of(*usage, "completion_tokens");
  }
  const auto choices = chunk.find("choices");
  if (choices == chunk.end()) return;
  if (!choices->is_array()) return fail("malformed", "\"choices\" is not a list", time);
  for (const json& choice : *choices) {
    if (carries_text(choice)) outcome_.chunks.push_back(time);
  }
}

void AnswerReader::done(double time) {
  if (!outcome_.usage) outcome_.output_tokens = static_cast<uint32_t>(outcome_.chunks.size());
  if (outcome_.chunks.empty()) {
    return fail("no text", "the answer ended before its first token", time);
  }
  outcome_.end = Outcome::End::done;
  outcome_.ended = time;
  ended_ = true;
}

void AnswerReader::finish(double time) {
  if (ended_) return;
  if (status_ == 0) return fail("malformed", tamed(refusal_, 200), time);
  if (status_ == 200) return fail("cut off", "the stream ended without [DONE]", time);
  auto [kind, message] =
      error_of(fmt::format("http {}", status_), json::parse(refusal_, nullptr, false));
  fail(std::move(kind), std::move(message), time);
}

void AnswerReader::fail(std::string kind, std::string message, double time) {
  if (ended_) return;
  outcome_.end = Outcome::End::failed;
  outcome_.kind = std::move(kind);
  outcome_.message = std::move(message);
  outcome_.ended = time;
  ended_ = true;
}

}  // namespace flexllm::cli::bench
