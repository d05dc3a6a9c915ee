// Sockets that accept: a TCP port, and a Unix domain socket with its file. Used by server.cpp only.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <tl/expected.hpp>

namespace flexllm::server {

using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

// The error says what could not be bound, and why.
tl::expected<Acceptor, std::string> listen_tcp(const boost::asio::any_io_executor& executor,
                                               const std::string& host, uint16_t port);
uint16_t port_of(const Acceptor& tcp);

// The file of a Unix socket that this process listens on; removed with the object, unless another
// has taken its place.
class SocketFile {
 public:
  SocketFile() = default;
  explicit SocketFile(std::filesystem::path path);
  ~SocketFile();
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;
  SocketFile(SocketFile&& other) noexcept;

 private:
  std::filesystem::path path_;  // empty: none
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

struct UnixListener {
  Acceptor acceptor;
  SocketFile file;
};
// A file that a server left behind when it was killed is replaced; that of a server that lives, and
// whatever is no socket, is not.
tl::expected<UnixListener, std::string> listen_unix(const boost::asio::any_io_executor& executor,
                                                    const std::filesystem::path& path, mode_t mode);

}  // namespace flexllm::server
