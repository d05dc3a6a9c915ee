// Whose turn it is: start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", 1996)
// over clients of equal weight. Each request gets a start tag, and the least tag goes first: a
// client that asks for much waits for itself, not for others. Requests of one client keep their
// order. Pure logic; used by the scheduler's thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <unordered_map>

namespace flexllm::server {

class FairClock {
 public:
  // A request that is expected to take `cost` tokens. Returns its start tag.
  double arrive(const std::string& client, double cost) {
    if (clients_.size() >= kClients) {
      std::erase_if(clients_, [this](const auto& item) {
        return item.second.finish <= now_ && item.second.start <= now_;
      });
    }
    Tags& tags = clients_[client];
    tags.start = std::max({now_, tags.finish, tags.start});
    tags.finish = tags.start + cost;
    return tags.start;
  }
  // A request with this tag gets its place.
  void serve(double tag) { now_ = std::max(now_, tag); }
  // A request took so much more (or less) than expected.
  void correct(const std::string& client, double difference) {
    const auto found = clients_.find(client);
    if (found != clients_.end()) found->second.finish += difference;
  }

 private:
  static constexpr size_t kClients = 1024;  // more are kept only while they wait
  struct Tags {
    double start = 0;
    double finish = 0;
  };
  double now_ = 0;
  std::unordered_map<std::string, Tags> clients_;
};

}  // namespace flexllm::server
