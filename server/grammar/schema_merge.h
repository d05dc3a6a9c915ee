// JSON schemas that hold at once, as one: what `allOf` and keywords beside `anyOf` and `$ref` mean.
// Used on the stack of one call.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "server/grammar/refusal.h"

namespace flexllm::server::grammar {

using Json = nlohmann::ordered_json;  // properties keep their order

// Keywords that say nothing of what is valid.
bool is_annotation(std::string_view keyword);

class SchemaMerger {
 public:
  // `root` must outlive it.
  explicit SchemaMerger(const Json& root) : root_(root) {}

  // The part of the root that a $ref names: "#", or "#/" and a JSON pointer. Throws Refused.
  const Json& resolve(const std::string& reference) const;
  // `schema` without $ref and allOf at its top. Throws Refused where they cannot be merged.
  Json flattened(const Json& schema) { return flattened(schema, 0); }
  // What satisfies both. Throws Refused, naming the keyword, where no schema of ours says that.
  Json merged(const Json& a, const Json& b) { return merged(a, b, 0); }

 private:
  Json flattened(const Json& schema, int depth);
  Json merged(const Json& a, const Json& b, int depth);

  const Json& root_;
  int merges_ = 0;  // so far: copies can double with each level
};

}  // namespace flexllm::server::grammar
