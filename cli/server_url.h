// Where a server is and how it is reached: TCP in clear or under TLS, or a Unix socket.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace flexllm::cli {

struct ServerUrl {
  std::string host;
  std::string port;
  std::string base;                                // path before "/v1"; empty or "/x"
  std::string unix_socket;                         // path; empty: host and port
  std::shared_ptr<boost::asio::ssl::context> tls;  // null: in clear

  std::string authority() const;  // for the Host header
};
// "http://HOST[:PORT][/PATH]", the same with https, or "unix:PATH"; a trailing "/v1" is dropped. A
// server under TLS must have a certificate of an authority in `ca_file` (PEM), or if that is empty
// of one that the system trusts. The error says what is wrong.
tl::expected<ServerUrl, std::string> parse_url(std::string_view url,
                                               const std::filesystem::path& ca_file = {});

using Endpoint = boost::asio::generic::stream_protocol::endpoint;
// The addresses behind it. Blocks while the name is resolved.
tl::expected<std::vector<Endpoint>, std::string> places_of(
    const ServerUrl& url, const boost::asio::any_io_executor& executor);

// Before the handshake: the name that is asked for and that the certificate must have.
void expect_server(SSL* connection, const ServerUrl& url);
// Why a handshake failed.
std::string handshake_failure(SSL* connection, const boost::system::error_code& error);

}  // namespace flexllm::cli
