#include "server/api/response_format.h"

#include <algorithm>
#include <string>

namespace flexllm::server {
namespace {

constexpr size_t kMaxName = 64;

void read_schema(Fields& format, const nlohmann::json& member,
                 const nlohmann::ordered_json& ordered, ResponseFormat& out) {
  Fields inner(member, format.full_name("json_schema"));
  std::string name;
  std::string description;
  bool strict = true;  // it always is
  if (inner.find("name") == nullptr) inner.fail("name", "is required.");
  inner.read("name", name);
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '-';
  });
  if (name.empty() || name.size() > kMaxName || !plain) {
    inner.fail("name", "must be 1 to 64 letters, digits, underscores or dashes.");
  }
  inner.read("description", description);
  inner.read("strict", strict);
  const nlohmann::json* schema = inner.find("schema");
  if (schema == nullptr || !schema->is_object()) {
    inner.fail("schema", "must be an object: a JSON schema.");
  } else {
    out.schema = ordered["json_schema"]["schema"];
  }
  if (auto error = inner.finish()) format.fail(std::move(*error));
}

}  // namespace

ResponseFormat read_response_format(Fields& fields, const nlohmann::ordered_json& ordered) {
  using Kind = ResponseFormat::Kind;
  ResponseFormat out;
  const nlohmann::json* member = fields.find("response_format");
  if (member == nullptr) return out;
  Fields format(*member, "response_format");
  std::string type;
  format.read("type", type);
  if (type == "json_object") {
    out.kind = Kind::json_object;
  } else if (type == "json_schema") {
    out.kind = Kind::json_schema;
    const nlohmann::json* schema = format.find("json_schema");
    if (schema == nullptr) {
      format.fail("json_schema", "is required.");
    } else {
      read_schema(format, *schema, ordered, out);
    }
  } else if (type != "text") {
    format.fail("type", "must be 'text', 'json_object' or 'json_schema'.");
  }
  if (auto error = format.finish()) fields.fail(std::move(*error));
  return out;
}

tl::expected<std::shared_ptr<const grammar::Grammar>, ApiError> grammar_of(
    const ResponseFormat& format, grammar::GrammarCache& cache) {
  if (format.kind == ResponseFormat::Kind::text) return nullptr;
  auto made = format.kind == ResponseFormat::Kind::json_object ? cache.json_object()
                                                               : cache.json_schema(format.schema);
  if (made) return *made;
  std::string param = "response_format.json_schema.schema";
  if (const auto& path = made.error().path; !path.empty()) param += "." + path;
  return tl::unexpected(
      invalid_request(param, "'" + param + "': " + made.error().message, "invalid_schema"));
}

}  // namespace flexllm::server
