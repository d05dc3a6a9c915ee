// Grammars by what they were made from, for one vocabulary. Thread-safe; compiling is done by the
// caller's thread.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "server/grammar/grammar.h"
#include "server/grammar/json_text.h"
#include "server/grammar/schema_merge.h"

namespace flexllm::server::grammar {

class GrammarCache {
 public:
  using Result = tl::expected<std::shared_ptr<const Grammar>, SchemaError>;
  // Adds the rules of a text and returns where it begins; `end` is what comes after it. May throw
  // Refused.
  using Build = std::function<Address(ProgramBuilder& builder, JsonText& text, Address end)>;

  explicit GrammarCache(std::shared_ptr<const TokenTrie> trie) : trie_(std::move(trie)) {}

  // Any JSON object.
  Result json_object();
  // The values of a schema, which must have at most kMaxSchemaBytes.
  Result json_schema(const Json& schema);
  // What `build` makes; `key` must tell it from all others.
  Result get(const std::string& key, const Build& build);

 private:
  using Entry = std::pair<std::string, std::shared_ptr<const Grammar>>;
  std::shared_ptr<const Grammar> find(const std::string& key);

  const std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first
};

}  // namespace flexllm::server::grammar
