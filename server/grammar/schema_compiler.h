// A JSON schema as a program of the texts that it allows. What is supported:
// docs/serving.md#structured-output. Pure functions; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/grammar/json_text.h"
#include "server/grammar/program.h"
#include "server/grammar/refusal.h"
#include "server/grammar/schema_merge.h"

namespace flexllm::server::grammar {

inline constexpr size_t kMaxSchemaBytes = 128 * 1024;  // of its compact text
inline constexpr size_t kMaxSubschemas = 4000;

// Adds rules for the values of a schema to a program. `root` must outlive it. Throws Refused.
class SchemaCompiler {
 public:
  SchemaCompiler(ProgramBuilder& builder, JsonText& text, const Json& root);

  // The rule of a part of the root or of the root itself; `path` names it in errors.
  Address compile(const Json& schema, std::string path);

 private:
  struct Task {
    Address rule;
    const Json* schema;
    std::string path;
  };

  // The rule of a schema, which is compiled later; one for each place in the root, so that
  // schemas may refer to each other in circles.
  Address rule(const Json& schema, const std::string& path);
  // Likewise of a schema that is made here.
  Address rule_of(Json schema, const std::string& path);
  Address body(const Json& schema, const std::string& path);
  Address union_of(const Json& schema, const char* keyword, const std::string& path);
  Address listed(const Json& schema);
  Address of_type(const std::string& type, const Json& schema, const std::string& path);
  Address scalar(const std::string& type, const Json& schema, const std::string& path);
  Address text(const Json& schema, const std::string& path);
  Address number(const Json& schema, bool integer);
  Address object(const Json& schema, const std::string& path);
  Address array(const Json& schema, const std::string& path);

  ProgramBuilder& builder_;
  JsonText& text_;
  SchemaMerger merger_;
  std::map<const Json*, Address> rules_;
  std::map<std::string, Address> scalars_;  // by type and what is said of it
  std::vector<Task> tasks_;
  std::vector<std::unique_ptr<const Json>> made_;
};

}  // namespace flexllm::server::grammar
