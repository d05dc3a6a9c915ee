#include "formats/sha256.h"

#include <gtest/gtest.h>

#include <string>

#include "formats/error.h"
#include "formats/tests/files.h"

namespace flexllm::formats {
namespace {

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// FIPS 180-4's examples.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256(as_bytes(std::string(1000000, 'a')))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameForPiecesAndForAFile) {
  Sha256 hash;
  hash.update(as_bytes("a"));
  hash.update({});
  hash.update(as_bytes("bc"));
  EXPECT_EQ(hash.finish(), sha256(as_bytes("abc")));
  const testing::TemporaryFolder folder;
  EXPECT_EQ(sha256_file(folder.write("abc", "abc")), sha256(as_bytes("abc")));
  EXPECT_EQ(sha256_file(folder.write("empty", "")), sha256({}));
  EXPECT_THROW(sha256_file(folder.path() / "absent"), Error);
}

}  // namespace
}  // namespace flexllm::formats
