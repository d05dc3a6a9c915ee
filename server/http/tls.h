// The server's certificate and key. Read at start-up and again when an operator asks.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <tl/expected.hpp>

namespace flexllm::server {

// TLS 1.2 and later with a certificate (PEM, with what stands between it and the authority) and its
// key (PEM, not encrypted). The error names the file and what is wrong with it: unreadable, no
// certificate or key, not yet or no longer valid, not a pair.
tl::expected<std::shared_ptr<boost::asio::ssl::context>, std::string> load_tls(
    const std::filesystem::path& certificate, const std::filesystem::path& key);

}  // namespace flexllm::server
