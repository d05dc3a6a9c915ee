// What passes between the threads that speak HTTP and the scheduler's: a typed request one way,
// events of its answer the other. JSON does not cross this line, nor does the card.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "host/sampler.h"
#include "server/api/error.h"
#include "server/grammar/grammar.h"

namespace flexllm::server {

struct GenerationRequest {
  std::string id;                              // for the log
  std::string client;                          // clients get equal shares of the card
  std::vector<std::vector<uint32_t>> prompts;  // one or several, none empty
  uint32_t n = 1;                              // choices of each prompt
  host::SamplingParams sampling;
  bool seeded = false;                   // `sampling.seed` was given; otherwise one is drawn
  std::optional<uint32_t> max_tokens;    // of each choice; absent: to the end of the context
  uint32_t min_tokens = 0;               // before that neither a token nor a string ends it
  bool ignore_eos = false;               // the model's end tokens do not end the answer
  std::vector<std::string> stop;         // never shown
  std::vector<uint32_t> stop_token_ids;  // end a choice like the model's own
  // What the text of each choice must be; nullptr: anything. It ends as soon as it is whole.
  std::shared_ptr<const grammar::Grammar> grammar;
  std::optional<uint32_t> logprobs;  // alternatives wanted for each token; 0: its own only
  bool echo = false;                 // the prompt's text (and logprobs) come first
  int32_t priority = 0;              // lower goes first; then by fair shares and arrival
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

enum class FinishReason { stop, length };
const char* to_string(FinishReason reason);

struct TokenRecord {
  uint32_t token = 0;
  std::optional<float> logprob;  // absent for the first token of an echoed prompt
  size_t text_offset = 0;        // characters of the choice's text before it, with the echo
  std::vector<host::TokenLogprob> top;
};

struct Usage {
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;  // of the prompts: not computed again
  uint64_t completion_tokens = 0;
};

// Where the time of a request went: from its arrival to its first place on the card, to its first
// token, to its last.
struct Timings {
  std::chrono::duration<double> queue{0};
  std::chrono::duration<double> prompt{0};
  std::chrono::duration<double> predicted{0};
  Usage usage;
};

// A piece of choice `prompt index * n + k`. The last one of a choice has `finish`.
struct Delta {
  uint32_t choice = 0;
  std::string text;                 // whole characters
  std::vector<TokenRecord> tokens;  // if logprobs were asked for
  std::optional<FinishReason> finish;
  std::optional<Timings> timings;  // in the last piece of all
};

// All choices have ended.
struct Finished {
  Usage usage;
};

using Event = std::variant<Delta, Finished, ApiError>;  // the last two are final

// The way back of one request's events: written by the scheduler, read by one connection. Bounded,
// so that who reads slowly costs memory up to a limit and never time. Thread-safe.
class ResultQueue {
 public:
  explicit ResultQueue(size_t max_bytes) : max_bytes_(max_bytes) {}

  // Any thread. False if unread events exceed the bound; then the event is dropped. The first
  // unread one does not count: a single event may be larger than the bound. A final event is always
  // taken, and what comes after it is dropped.
  bool push(Event event);
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  // Reader. What has arrived since the last call, in order.
  std::vector<Event> take();
  // `wake` is called, from any thread and under no lock, after each push. cancel() drops it, but a
  // call that has begun may still be under way then: it must own what it touches.
  void on_ready(std::function<void()> wake);
  // The reader has left: the scheduler frees what the request holds.
  void cancel();

 private:
  const size_t max_bytes_;
  std::mutex mutex_;
  std::vector<Event> events_;
  size_t bytes_ = 0;     // of all unread events but the first
  bool closed_ = false;  // the final event was pushed
  std::function<void()> wake_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace flexllm::server
