// SHA-256 of bytes, of a file, or of a stream. Free functions may be called on any thread; one
// Sha256 belongs to one thread at a time. Backed by OpenSSL's libcrypto.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace flexllm::formats {

using Sha256Digest = std::array<uint8_t, 32>;

// A digest over pieces: `update` any number of times, then `finish` once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  Sha256Digest finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Sha256Digest sha256(std::span<const std::byte> bytes);

// Throws Error when the file cannot be read.
Sha256Digest sha256_file(const std::filesystem::path& path);

// 64 lower-case hexadecimal digits.
std::string to_hex(const Sha256Digest& digest);

}  // namespace flexllm::formats
