#include "cli/server_url.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>

namespace flexllm::cli {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::string_view kUnix = "unix:";

tl::expected<std::shared_ptr<asio::ssl::context>, std::string> client_tls(
    const std::filesystem::path& ca_file) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  error_code error;
  context->set_verify_mode(asio::ssl::verify_peer, error);
  if (ca_file.empty()) {
    context->set_default_verify_paths(error);
    if (error) return tl::unexpected("the system's certificates: " + error.message());
  } else {
    context->load_verify_file(ca_file.string(), error);
    if (error) return tl::unexpected(ca_file.string() + ": holds no certificate to trust");
  }
  return context;
}

bool is_address(const std::string& host) {
  error_code error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

std::string ServerUrl::authority() const {
  if (!unix_socket.empty()) return "localhost";
  const bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? "[" + host + "]" : host) + ":" + port;
}

tl::expected<ServerUrl, std::string> parse_url(std::string_view url,
                                               const std::filesystem::path& ca_file) {
  ServerUrl out;
  if (url.starts_with(kUnix)) {
    out.unix_socket = url.substr(kUnix.size());
    if (out.unix_socket.empty()) return tl::unexpected(std::string("the URL names no socket"));
    return out;
  }
  const size_t scheme = url.find("://");
  const bool https = url.substr(0, scheme) == "https";
  if (scheme == std::string_view::npos || (!https && url.substr(0, scheme) != "http")) {
    return tl::unexpected(std::string("a URL begins with http://, https:// or unix:"));
  }
  url.remove_prefix(scheme + 3);
  const size_t slash = url.find('/');
  std::string_view authority = url.substr(0, slash);
  out.port = https ? "443" : "80";
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    out.port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
    if (out.port.empty() || out.port.find_first_not_of("0123456789") != std::string::npos) {
      return tl::unexpected(std::string("the port of a URL is a number"));
    }
  }
  if (authority.starts_with('[') && authority.ends_with(']')) {
    authority = authority.substr(1, authority.size() - 2);
  }
  if (authority.empty()) return tl::unexpected(std::string("the URL names no host"));
  out.host = authority;
  if (slash != std::string_view::npos) out.base = url.substr(slash);
  while (out.base.ends_with('/')) out.base.pop_back();
  if (out.base.ends_with("/v1")) out.base.resize(out.base.size() - 3);
  if (https) {
    auto tls = client_tls(ca_file);
    if (!tls) return tl::unexpected(tls.error());
    out.tls = std::move(*tls);
  }
  return out;
}

tl::expected<std::vector<Endpoint>, std::string> places_of(const ServerUrl& url,
                                                           const asio::any_io_executor& executor) {
  std::vector<Endpoint> places;
  if (!url.unix_socket.empty()) {
    if (url.unix_socket.size() > 107) return tl::unexpected(std::string("the path is too long"));
    places.emplace_back(asio::local::stream_protocol::endpoint(url.unix_socket));
    return places;
  }
  error_code error;
  asio::ip::tcp::resolver resolver(executor);
  for (const auto& entry : resolver.resolve(url.host, url.port, error)) {
    places.emplace_back(entry.endpoint());
  }
  if (error) return tl::unexpected(url.host + ": " + error.message());
  return places;
}

void expect_server(SSL* connection, const ServerUrl& url) {
  if (is_address(url.host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection), url.host.c_str());
  } else {
    SSL_set_tlsext_host_name(connection, url.host.c_str());
    SSL_set1_host(connection, url.host.c_str());
  }
}

std::string handshake_failure(SSL* connection, const error_code& error) {
  const long verdict = SSL_get_verify_result(connection);
  if (verdict == X509_V_OK) return "TLS: " + error.message();
  return std::string("the server's certificate: ") + X509_verify_cert_error_string(verdict);
}

}  // namespace flexllm::cli
