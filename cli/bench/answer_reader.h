// Follows a streamed answer of an OpenAI-style server, event by event, into an Outcome. Knows
// nothing of connections and clocks. Used by one thread.
#pragma once

#include <string>
#include <string_view>

#include "cli/bench/outcome.h"
#include "cli/sse_reader.h"

namespace flexllm::cli::bench {

class AnswerReader {
 public:
  explicit AnswerReader(Outcome& outcome) : outcome_(outcome) {}

  // The status and the type of the answer, before its body.
  void head(unsigned status, std::string_view content_type);
  // Bytes of the body that came at `time`. False: there is nothing more to read for.
  bool take(std::string_view bytes, double time);
  // The body has come to its end, or broke off: decides what the request came to, unless it is
  // known.
  void finish(double time);
  // Ends the request so, unless its end is known.
  void fail(std::string kind, std::string message, double time);

  bool ended() const { return ended_; }

 private:
  void event(const std::string& data, double time);
  void done(double time);

  Outcome& outcome_;
  SseReader sse_;
  unsigned status_ = 0;
  std::string refusal_;       // body of an error
  uint64_t since_event_ = 0;  // bytes
  bool ended_ = false;
};

}  // namespace flexllm::cli::bench
