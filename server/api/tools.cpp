#include "server/api/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "server/grammar/schema_compiler.h"

namespace flexllm::server {
namespace {

using grammar::Address;
using nlohmann::json;

constexpr size_t kMaxName = 64;

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kMaxName &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                  c == '_' || c == '-';
         });
}

void read_function(Fields& tool, const json& member, std::vector<std::string>& names) {
  Fields function(member, tool.full_name("function"));
  std::string name;
  std::string description;
  bool strict = false;  // what must be called is held to its schema in any case
  function.read("name", name);
  if (!is_name(name)) {
    function.fail("name", "must be 1 to 64 letters, digits, underscores or dashes.");
  }
  if (std::find(names.begin(), names.end(), name) != names.end()) {
    function.fail("name", "is the name of another tool.");
  }
  function.read("description", description);
  function.read("strict", strict);
  const json* parameters = function.find("parameters");
  if (parameters != nullptr &&
      (!parameters->is_object() || parameters->value("type", json("object")) != json("object"))) {
    function.fail("parameters", "must be the JSON schema of an object.");
  }
  if (auto error = function.finish()) tool.fail(std::move(*error));
  names.push_back(std::move(name));
}

void read_list(Fields& fields, const json& list, Tools& out) {
  if (!list.is_array()) return fields.fail("tools", "must be a list.");
  if (list.size() > kMaxTools) {
    return fields.fail("tools", fmt::format("may hold at most {} tools.", kMaxTools));
  }
  for (size_t i = 0; i < list.size() && fields.ok(); ++i) {
    Fields tool(list[i], fmt::format("tools[{}]", i));
    std::string type;
    tool.read("type", type);
    if (type != "function") tool.fail("type", "must be 'function'.");
    const json* function = tool.find("function");
    if (function == nullptr) {
      tool.fail("function", "is required.");
    } else {
      read_function(tool, *function, out.names);
    }
    if (auto error = tool.finish()) fields.fail(std::move(*error));
  }
}

void read_choice(Fields& fields, const json& member, Tools& out) {
  if (member == "none") {
    out.choice = Tools::Choice::none;
  } else if (member == "auto") {
  } else if (member == "required") {
    if (out.names.empty()) return fields.fail("tool_choice", "needs 'tools'.");
    out.choice = Tools::Choice::required;
  } else if (member.is_object()) {
    Fields choice(member, "tool_choice");
    std::string type;
    choice.read("type", type);
    if (type != "function") choice.fail("type", "must be 'function'.");
    if (const json* function = choice.find("function")) {
      Fields inner(*function, "tool_choice.function");
      inner.read("name", out.only);
      if (std::find(out.names.begin(), out.names.end(), out.only) == out.names.end()) {
        inner.fail("name", "must be the name of a tool.");
      }
      if (auto error = inner.finish()) choice.fail(std::move(*error));
    } else {
      choice.fail("function", "is required.");
    }
    if (auto error = choice.finish()) fields.fail(std::move(*error));
    out.choice = Tools::Choice::required;
  } else {
    fields.fail("tool_choice", "must be 'none', 'auto', 'required' or name a function.");
  }
}

}  // namespace

Tools read_tools(Fields& fields, const nlohmann::ordered_json& ordered) {
  Tools out;
  if (const json* list = fields.find("tools"); list != nullptr && *list != json::array()) {
    read_list(fields, *list, out);
    out.choice = Tools::Choice::automatic;
  }
  if (const json* choice = fields.find("tool_choice")) read_choice(fields, *choice, out);
  fields.read("parallel_tool_calls", out.parallel);
  // A model that is not to call any tool is not shown any.
  if (out.choice != Tools::Choice::none && fields.ok()) out.list = ordered;
  return out;
}

tl::expected<std::shared_ptr<const grammar::Grammar>, ApiError> grammar_of(
    const Tools& tools, ToolFormat format, grammar::GrammarCache& cache) {
  std::string key =
      fmt::format("tools {} {} {} ", static_cast<int>(format), tools.parallel, tools.only) +
      tools.list.dump();
  if (key.size() > grammar::kMaxSchemaBytes) {
    return tl::unexpected(invalid_request("tools", "'tools' is larger than 128 KiB."));
  }
  const bool llama = format == ToolFormat::llama;
  const auto build = [&](grammar::ProgramBuilder& builder, grammar::JsonText& text, Address end) {
    std::deque<grammar::SchemaCompiler> compilers;
    // {"name": ..., "arguments": {...}}, for each tool.
    const auto call = [&](Address next) {
      std::vector<Address> calls;
      for (size_t i = 0; i < tools.list.size(); ++i) {
        const auto& function = tools.list[i]["function"];
        const auto name = function["name"].get<std::string>();
        if (!tools.only.empty() && name != tools.only) continue;
        const auto parameters = function.find("parameters");
        const bool any =
            parameters == function.end() || parameters->is_null() || parameters->empty();
        Address arguments = 0;
        if (any) {
          arguments = text.object();
        } else {
          compilers.emplace_back(builder, text, *parameters);
          arguments = compilers.back().compile(*parameters,
                                               fmt::format("tools[{}].function.parameters", i));
        }
        calls.push_back(
            builder.literal(fmt::format("{}\", \"{}\": ", name, llama ? "parameters" : "arguments"),
                            builder.call(arguments, builder.byte('}', next))));
      }
      return builder.literal("{\"name\": \"", builder.split(std::move(calls)));
    };
    if (llama) return call(end);
    const uint32_t more = tools.parallel ? kMaxForcedCalls - 1 : 0;
    if (format == ToolFormat::mistral) {
      const Address one = call(builder.ret());
      const Address rest =
          builder.repeat(builder.literal(", ", one), 0, more, builder.byte(']', end));
      return builder.literal("[TOOL_CALLS] [", builder.call(one, rest));
    }
    const Address one =
        builder.literal("<tool_call>\n", call(builder.literal("\n</tool_call>", builder.ret())));
    return builder.call(one, builder.repeat(builder.byte('\n', one), 0, more, end));
  };
  auto made = cache.get(key, build);
  if (made) return *made;
  const std::string param = made.error().path.empty() ? "tools" : made.error().path;
  return tl::unexpected(
      invalid_request(param, "'" + param + "': " + made.error().message, "invalid_schema"));
}

}  // namespace flexllm::server
