// flexllm-card-reset CARD: what `xbutil reset` is for a real card. CARD is an index or a PCI
// address; the emulated card's process is reached over the socket FLEXLLM_CARD_CONTROL. The card
// must have no open handles. Exit status: 0 done, 1 refused or not reachable, 2 wrong usage.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "host/card/socket_address.h"

namespace {

// One line out, one line back; empty if the socket does not answer.
std::string ask(const std::string& path, const std::string& line) {
  const auto address = flexllm::card::socket_address(path);
  if (!address) return {};
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string reply;
  if (::connect(socket, address->get(), address->length) == 0 &&
      ::send(socket, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size())) {
    char bytes[4096];
    ssize_t n = 0;
    while (reply.find('\n') == std::string::npos &&
           (n = ::recv(socket, bytes, sizeof bytes, 0)) > 0) {
      reply.append(bytes, static_cast<std::size_t>(n));
    }
  }
  ::close(socket);
  return reply;
}

}  // namespace

int main(int count, char** arguments) {
  const char* path = std::getenv("FLEXLLM_CARD_CONTROL");
  if (count != 2 || path == nullptr) {
    std::cerr << "usage: FLEXLLM_CARD_CONTROL=SOCKET flexllm-card-reset CARD\n";
    return 2;
  }
  const nlohmann::json command = {{"op", "reset"}, {"card", arguments[1]}};
  const auto reply = nlohmann::json::parse(ask(path, command.dump() + "\n"), nullptr, false);
  if (reply.is_object() && reply.value("ok", false)) return 0;
  std::cerr << "flexllm-card-reset: "
            << (reply.is_object() ? reply.value("error", "refused")
                                  : "no answer from " + std::string(path))
            << "\n";
  return 1;
}
