// Certificates made on the spot, and a client that speaks TLS.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "server/tests/http_harness.h"

namespace flexllm::server::testing {

template <auto release>
struct Release {
  template <class T>
  void operator()(T* pointer) const {
    release(pointer);
  }
};
template <class T, auto release>
using Handle = std::unique_ptr<T, Release<release>>;

struct CertificateFiles {
  std::filesystem::path certificate;
  std::filesystem::path key;
};

// A certificate for "localhost" that signs itself, valid from `begin_s` to `end_s` seconds from
// now, as folder/name.crt and folder/name.key, the latter encrypted with `password` if there is
// one.
inline CertificateFiles make_certificate(const std::filesystem::path& folder,
                                         const std::string& name, long begin_s = -60,
                                         long end_s = 3600, const char* password = nullptr) {
  const CertificateFiles files{folder / (name + ".crt"), folder / (name + ".key")};
  const Handle<EVP_PKEY, EVP_PKEY_free> key(EVP_EC_gen("P-256"));
  const Handle<X509, X509_free> certificate(X509_new());
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), begin_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), end_s);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), subject);
  const Handle<X509_EXTENSION, X509_EXTENSION_free> names(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost"));
  X509_set_version(certificate.get(), X509_VERSION_3);
  X509_add_ext(certificate.get(), names.get(), -1);
  EXPECT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
  const Handle<FILE, std::fclose> certificate_file(std::fopen(files.certificate.c_str(), "w"));
  EXPECT_EQ(PEM_write_X509(certificate_file.get(), certificate.get()), 1);
  const Handle<FILE, std::fclose> key_file(std::fopen(files.key.c_str(), "w"));
  EXPECT_EQ(PEM_write_PrivateKey(key_file.get(), key.get(),
                                 password == nullptr ? nullptr : EVP_aes_128_cbc(), nullptr, 0,
                                 nullptr, const_cast<char*>(password)),
            1);
  return files;
}

// Trusts everybody.
class TlsClient : public Client {
 public:
  explicit TlsClient(const TestServer& server, int newest = TLS1_3_VERSION)
      : Client(server), context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_security_level(context_.get(), 0);
    SSL_CTX_set_max_proto_version(context_.get(), newest);
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), fd_);
    greeted_ = SSL_connect(ssl_.get()) == 1;
  }
  bool greeted() const { return greeted_; }
  std::string server_name() const {
    const Handle<X509, X509_free> certificate(SSL_get1_peer_certificate(ssl_.get()));
    char name[64] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name,
                              sizeof name);
    return name;
  }
  // The server said that it has sent everything.
  bool saw_the_end() const { return (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0; }

 private:
  ssize_t put(std::string_view bytes) override {
    return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
  }
  ssize_t take(char* bytes, size_t size) override {
    return SSL_read(ssl_.get(), bytes, static_cast<int>(size));
  }

  Handle<SSL_CTX, SSL_CTX_free> context_;
  Handle<SSL, SSL_free> ssl_;
  bool greeted_ = false;
};

}  // namespace flexllm::server::testing
