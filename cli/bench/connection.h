// The generator's connections: one request at a time on each, kept for later requests where the
// server allows it. Used by one thread, that of the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cli/bench/answer_reader.h"
#include "cli/server_url.h"
#include "server/http/stream.h"

namespace flexllm::cli::bench {

using Clock = std::chrono::steady_clock;

class ConnectionPool {
 public:
  ConnectionPool(boost::asio::any_io_executor executor, const ServerUrl& url, std::string api_key,
                 std::vector<cli::Endpoint> places);

  // Posts `body` and follows the answer into `reader`, which knows the end afterwards, unless
  // close_all() came first. Times are seconds since `begin`.
  boost::asio::awaitable<void> exchange(std::string path, std::string body, Clock::time_point begin,
                                        Clock::time_point deadline, AnswerReader& reader);
  // Breaks off what is under way, for good.
  void close_all();

 private:
  using LimitedSocket = boost::beast::basic_stream<boost::asio::generic::stream_protocol>;
  struct Connection {
    explicit Connection(const boost::asio::any_io_executor& executor)
        : stream(LimitedSocket(executor)) {}
    server::Stream<LimitedSocket> stream;
    boost::beast::flat_buffer buffer;
  };
  enum class Step { ended, stale };
  struct Request;

  boost::asio::awaitable<Step> attempt(Connection& connection, bool reused, const Request& request,
                                       AnswerReader& reader);

  const boost::asio::any_io_executor executor_;
  const ServerUrl url_;
  const std::string authorization_;
  const std::vector<cli::Endpoint> places_;
  std::vector<std::unique_ptr<Connection>> idle_;
  std::set<Connection*> busy_;
  bool closed_ = false;
};

}  // namespace flexllm::cli::bench
