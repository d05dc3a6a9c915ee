// The answer to a request that generates text: turns the scheduler's events into one JSON body or
// into server-sent events. Owned by the connection; destroying it cancels the request.
#pragma once

#include <memory>
#include <optional>

#include "server/api/openai_response.h"
#include "server/http/types.h"
#include "server/scheduling/generation.h"

namespace flexllm::server {

HttpReply reply_of(const ApiError& error);

class GenerationReply final : public PendingReply {
 public:
  GenerationReply(std::shared_ptr<ResultQueue> results, ResponseWriter writer, bool stream)
      : results_(std::move(results)), writer_(std::move(writer)), stream_(stream) {}
  ~GenerationReply() override { results_->cancel(); }

  void on_ready(std::function<void()> wake) override { results_->on_ready(std::move(wake)); }
  Progress poll() override;
  std::string keep_alive() override;
  std::optional<TokenCounts> tokens() const override { return tokens_; }

 private:
  const std::shared_ptr<ResultQueue> results_;
  ResponseWriter writer_;
  const bool stream_;
  bool begun_ = false;  // the stream's status line is out
  std::optional<TokenCounts> tokens_;
};

}  // namespace flexllm::server
