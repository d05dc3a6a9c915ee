#include "server/http/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fstream>

namespace flexllm::server {
namespace {

namespace ssl = boost::asio::ssl;

// Also empties OpenSSL's list, whose rest would be taken for the next call's.
std::string last_error() {
  const unsigned long code = ERR_peek_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

std::string date(const ASN1_TIME* time) {
  tm parts = {};
  std::string text(32, '\0');
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "an unknown date";
  text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts));
  return text;
}

bool is_readable(const std::filesystem::path& file) {
  std::error_code ignored;
  return !std::filesystem::is_directory(file, ignored) && std::ifstream(file).good();
}

}  // namespace

tl::expected<std::shared_ptr<ssl::context>, std::string> load_tls(
    const std::filesystem::path& certificate, const std::filesystem::path& key) {
  for (const auto& file : {certificate, key}) {
    if (!is_readable(file)) return tl::unexpected(file.string() + ": cannot be read");
  }
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  // Never asks at the terminal.
  SSL_CTX_set_default_passwd_cb(native, [](char*, int, int, void*) { return 0; });
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(native, certificate.c_str()) != 1) {
    return tl::unexpected(certificate.string() + ": holds no certificate (" + last_error() + ")");
  }
  const X509* own = SSL_CTX_get0_certificate(native);
  if (X509_cmp_current_time(X509_get0_notAfter(own)) <= 0) {
    return tl::unexpected(certificate.string() + ": the certificate expired on " +
                          date(X509_get0_notAfter(own)));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0) {
    return tl::unexpected(certificate.string() + ": the certificate is not valid before " +
                          date(X509_get0_notBefore(own)));
  }
  if (SSL_CTX_use_PrivateKey_file(native, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    const unsigned long code = ERR_peek_last_error();
    const bool other =
        ERR_GET_LIB(code) == ERR_LIB_X509 && (ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                                              ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH);
    const std::string reason = last_error();
    return tl::unexpected(key.string() +
                          (other ? ": is not the key of " + certificate.string()
                                 : ": holds no key that is not encrypted (" + reason + ")"));
  }
  return context;
}

}  // namespace flexllm::server
