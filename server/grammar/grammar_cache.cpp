#include "server/grammar/grammar_cache.h"

#include <algorithm>

#include "server/grammar/schema_compiler.h"

namespace flexllm::server::grammar {
namespace {

constexpr size_t kMaxEntries = 16;

}  // namespace

std::shared_ptr<const Grammar> GrammarCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& e) { return e.first == key; });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entry->second;
}

GrammarCache::Result GrammarCache::get(const std::string& key, const Build& build) {
  if (auto known = find(key)) return known;
  std::shared_ptr<const Grammar> grammar;
  try {
    ProgramBuilder builder;
    JsonText text(builder);
    const Address start = build(builder, text, builder.accept());
    auto program = builder.finish(start, trie_->single_bytes());
    if (!program) refuse("No text satisfies the schema.");
    grammar = std::make_shared<const Grammar>(std::move(*program), trie_);
  } catch (Refused& refused) {
    return tl::unexpected(std::move(refused.error));
  }
  if (auto known = find(key)) return known;  // another thread was faster
  const std::lock_guard lock(mutex_);
  entries_.emplace_front(key, grammar);
  if (entries_.size() > kMaxEntries) entries_.pop_back();
  return grammar;
}

GrammarCache::Result GrammarCache::json_object() {
  return get("object", [](ProgramBuilder& builder, JsonText& text, Address end) {
    return builder.call(text.object(), end);
  });
}

GrammarCache::Result GrammarCache::json_schema(const Json& schema) {
  const std::string text = schema.dump();
  if (text.size() > kMaxSchemaBytes) {
    return tl::unexpected(SchemaError{{}, "The schema is larger than 128 KiB."});
  }
  return get("schema " + text, [&](ProgramBuilder& builder, JsonText& json, Address end) {
    SchemaCompiler compiler(builder, json, schema);
    return builder.call(compiler.compile(schema, {}), end);
  });
}

}  // namespace flexllm::server::grammar
