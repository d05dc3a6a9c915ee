#include "server/api/generation_reply.h"

#include <utility>

namespace flexllm::server {

HttpReply reply_of(const ApiError& error) {
  HttpReply reply;
  reply.status = error.status;
  reply.body = to_json(error);
  if (error.retry_after_s > 0) {
    reply.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  }
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

PendingReply::Progress GenerationReply::poll() {
  Progress progress;
  for (Event& event : results_->take()) {
    if (auto* delta = std::get_if<Delta>(&event)) {
      if (stream_) {
        begun_ = true;
        progress.events += writer_.events(*delta);
      } else {
        writer_.add(std::move(*delta));
      }
    } else if (const auto* finished = std::get_if<Finished>(&event)) {
      progress.done = true;
      tokens_ = {finished->usage.prompt_tokens, finished->usage.completion_tokens};
      if (stream_) {
        progress.events += writer_.events(finished->usage);
      } else {
        progress.reply = HttpReply{.body = writer_.whole(finished->usage), .headers = {}};
      }
    } else {
      const auto& error = std::get<ApiError>(event);
      progress.done = true;
      if (begun_) {
        progress.events += ResponseWriter::events(error);
      } else {
        progress.reply = reply_of(error);
      }
    }
  }
  return progress;
}

std::string GenerationReply::keep_alive() {
  if (!stream_) return {};
  begun_ = true;
  return ResponseWriter::comment();
}

}  // namespace flexllm::server
