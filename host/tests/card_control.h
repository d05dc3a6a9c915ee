// How a test reaches the emulated card that it runs on (docs/emulated-card.md).
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "host/card/socket_address.h"

namespace flexllm::host::test {

// Points the control socket at a name of this process. Before XRT's first look at the card.
inline void name_control_socket() {
  ::setenv("FLEXLLM_CARD_CONTROL", ("@flexllm-host-test-" + std::to_string(::getpid())).c_str(), 1);
}

// Sends one command; true if the card says that it was done.
inline bool control(const std::string& command) {
  const auto address = card::socket_address(std::getenv("FLEXLLM_CARD_CONTROL"));
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const std::string line = command + "\n";
  std::string reply;
  if (::connect(socket, address->get(), address->length) == 0 &&
      ::send(socket, line.data(), line.size(), MSG_NOSIGNAL) > 0) {
    char bytes[4096];
    ssize_t count = 0;
    while (reply.find('\n') == std::string::npos &&
           (count = ::recv(socket, bytes, sizeof bytes, 0)) > 0) {
      reply.append(bytes, static_cast<size_t>(count));
    }
  }
  ::close(socket);
  return reply.find("\"ok\":true") != std::string::npos;
}

}  // namespace flexllm::host::test
