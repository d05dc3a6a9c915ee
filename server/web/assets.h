// The web pages: the chat at /, the API's description at /docs, and what they load from /web/. Read
// when the library is built (embed.cmake) and never from disk. Immutable; any thread.
#pragma once

#include <span>
#include <string_view>

namespace flexllm::server::web {

struct Asset {
  const char* path;  // of its URL
  std::string_view content_type;
  std::string_view etag;  // a digest of the content, in quotes
  std::string_view body;
};

std::span<const Asset> assets();

}  // namespace flexllm::server::web
