#include "server/http/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>

namespace flexllm::server {
namespace {

std::array<unsigned char, 32> digest(std::string_view key) {
  std::array<unsigned char, 32> out{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const auto& key : keys) digests_.push_back(digest(key));
}

tl::expected<std::vector<std::string>, std::string> ApiKeys::read(
    const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) return tl::unexpected(file.string() + ": cannot be read");
  std::vector<std::string> keys;
  std::string line;
  while (std::getline(in, line)) {
    while (!line.empty() && is_space(line.back())) line.pop_back();
    if (!line.empty() && line.front() != '#') keys.push_back(line);
  }
  if (keys.empty()) return tl::unexpected(file.string() + ": holds no key");
  return keys;
}

uint32_t ApiKeys::find(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return 0;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if ((authorization[i] | 0x20) != (kScheme[i] | 0x20)) return 0;
  }
  authorization.remove_prefix(kScheme.size());
  const auto given = digest(authorization);
  uint32_t found = 0;
  for (uint32_t i = 0; i < digests_.size(); ++i) {
    const bool same = CRYPTO_memcmp(given.data(), digests_[i].data(), given.size()) == 0;
    found |= static_cast<uint32_t>(-static_cast<int32_t>(same)) & (i + 1);
  }
  return found;
}

}  // namespace flexllm::server
