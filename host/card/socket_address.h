// The address of the control socket, as both of its ends spell it.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

namespace flexllm::card {

struct SocketAddress {
  sockaddr_un address{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// Nothing if the path is empty or too long. '@' stands for the NUL of an abstract name.
inline std::optional<SocketAddress> socket_address(const std::string& path) {
  SocketAddress out;
  if (path.empty() || path.size() >= sizeof out.address.sun_path) return std::nullopt;
  out.address.sun_family = AF_UNIX;
  std::memcpy(out.address.sun_path, path.data(), path.size());
  const bool is_abstract = path.front() == '@';
  if (is_abstract) out.address.sun_path[0] = '\0';
  out.length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1));
  return out;
}

}  // namespace flexllm::card
