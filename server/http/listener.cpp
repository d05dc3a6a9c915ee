#include "server/http/listener.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <utility>

namespace flexllm::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Local = asio::local::stream_protocol;

void open(Acceptor& acceptor, const asio::generic::stream_protocol::endpoint& endpoint,
          error_code& error) {
  acceptor.open(endpoint.protocol(), error);
  if (!error && endpoint.protocol().family() != AF_UNIX) {
    acceptor.set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error) acceptor.bind(endpoint, error);
}

// Whether somebody accepts at this file, or why that cannot be told.
tl::expected<bool, std::string> is_served(const asio::any_io_executor& executor,
                                          const std::filesystem::path& path) {
  struct stat found = {};
  if (lstat(path.c_str(), &found) != 0) return false;
  if (!S_ISSOCK(found.st_mode)) {
    return tl::unexpected(path.string() + ": is there and is not a socket");
  }
  Local::socket probe(executor);
  error_code error;
  probe.connect(Local::endpoint(path.string()), error);
  if (!error || error == asio::error::try_again) return true;  // its queue may be full
  if (error == asio::error::connection_refused) return false;
  return tl::unexpected(path.string() + ": " + error.message());
}

}  // namespace

tl::expected<Acceptor, std::string> listen_tcp(const asio::any_io_executor& executor,
                                               const std::string& host, uint16_t port) {
  error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (error) return tl::unexpected("'" + host + "' is not an address to bind");
  Acceptor acceptor(executor);
  open(acceptor, tcp::endpoint(address, port), error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return tl::unexpected(fmt::format("cannot listen on {}:{}: {}", host, port, error.message()));
  }
  return acceptor;
}

uint16_t port_of(const Acceptor& acceptor) {
  const auto endpoint = acceptor.local_endpoint();
  tcp::endpoint own;
  own.resize(endpoint.size());
  std::memcpy(own.data(), endpoint.data(), endpoint.size());
  return own.port();
}

tl::expected<UnixListener, std::string> listen_unix(const asio::any_io_executor& executor,
                                                    const std::filesystem::path& path,
                                                    mode_t mode) {
  const auto failed = [&](const std::string& why) {
    return tl::unexpected(fmt::format("cannot listen on {}: {}", path.string(), why));
  };
  if (path.native().size() >= sizeof(sockaddr_un::sun_path)) return failed("the path is too long");
  const auto served = is_served(executor, path);
  if (!served) return tl::unexpected(served.error());
  if (*served) return failed("another server listens there");
  ::unlink(path.c_str());
  Acceptor acceptor(executor);
  error_code error;
  open(acceptor, Local::endpoint(path.string()), error);
  if (error) return failed(error.message());
  SocketFile file(path);
  // Until it listens nobody gets in, whatever the mode that bind() gave it.
  if (::chmod(path.c_str(), mode) != 0) return failed(std::strerror(errno));
  acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return failed(error.message());
  return UnixListener{std::move(acceptor), std::move(file)};
}

SocketFile::SocketFile(std::filesystem::path path) : path_(std::move(path)) {
  struct stat own = {};
  if (lstat(path_.c_str(), &own) != 0) return;
  device_ = own.st_dev;
  inode_ = own.st_ino;
}

SocketFile::SocketFile(SocketFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), device_(other.device_), inode_(other.inode_) {}

SocketFile::~SocketFile() {
  struct stat found = {};
  if (path_.empty() || lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) ::unlink(path_.c_str());
}

}  // namespace flexllm::server
