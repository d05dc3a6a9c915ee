#include "server/grammar/schema_compiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "server/grammar/formats.h"
#include "server/grammar/numbers.h"
#include "server/grammar/regex.h"
#include "tokenizer/utf8.h"

namespace flexllm::server::grammar {
namespace {

constexpr size_t kMaxListed = 2000;      // values of an enum
constexpr size_t kMaxProperties = 1000;  // of an object
constexpr size_t kMaxPrefixItems = 1000;
constexpr uint32_t kLargestCount = 1'000'000;  // of characters or items

constexpr std::array<std::string_view, 7> kTypes{"object",  "array",   "string", "number",
                                                 "integer", "boolean", "null"};

struct Keyword {
  std::string_view name;
  std::string_view type;  // the one type that it says something of; empty: all
};
constexpr std::array<Keyword, 23> kKeywords{{
    {"type", ""},
    {"enum", ""},
    {"const", ""},
    {"anyOf", ""},
    {"oneOf", ""},
    {"allOf", ""},
    {"$ref", ""},
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
}};

const Keyword* keyword(std::string_view name) {
  const auto found = std::find_if(kKeywords.begin(), kKeywords.end(),
                                  [name](const Keyword& k) { return k.name == name; });
  return found == kKeywords.end() ? nullptr : &*found;
}

std::string below(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : path + "." + std::string(name);
}

// Runs `work`; what it refuses without saying where is at `path`.
template <typename Work>
auto located(const std::string& path, const Work& work) {
  try {
    return work();
  } catch (Refused& refused) {
    if (refused.error.path.empty()) refused.error.path = path;
    throw;
  }
}

std::optional<uint32_t> count_of(const Json& schema, const char* name) {
  const auto member = schema.find(name);
  if (member == schema.end()) return std::nullopt;
  const double value = member->is_number() ? member->get<double>() : -1;
  if (value < 0 || value != static_cast<double>(static_cast<uint64_t>(std::min(value, 1e15)))) {
    refuse(fmt::format("'{}' must be a whole number.", name));
  }
  if (value > kLargestCount) refuse(fmt::format("'{}' must be at most {}.", name, kLargestCount));
  return static_cast<uint32_t>(value);
}

std::u32string characters_of(std::string_view utf8) {
  std::u32string out;
  for (size_t at = 0; at < utf8.size();) out += tokenizer::read_code_point(utf8, at);
  return out;
}

bool has_type(const Json& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer" && value.is_number_float()) {
    const double number = value.get<double>();
    return number == static_cast<double>(static_cast<int64_t>(std::clamp(number, -9e18, 9e18)));
  }
  return value.is_number();
}

}  // namespace

SchemaCompiler::SchemaCompiler(ProgramBuilder& builder, JsonText& text, const Json& root)
    : builder_(builder), text_(text), merger_(root) {}

Address SchemaCompiler::compile(const Json& schema, std::string path) {
  const Address start = rule(schema, path);
  while (!tasks_.empty()) {
    const Task task = std::move(tasks_.back());
    tasks_.pop_back();
    builder_.define(task.rule, located(task.path, [&] { return body(*task.schema, task.path); }));
  }
  return start;
}

Address SchemaCompiler::rule(const Json& schema, const std::string& path) {
  const auto [entry, fresh] = rules_.emplace(&schema, 0);
  if (fresh) {
    if (rules_.size() > kMaxSubschemas) refuse("The schema has too many parts.");
    entry->second = builder_.reserve();
    tasks_.push_back({entry->second, &schema, path});
  }
  return entry->second;
}

Address SchemaCompiler::rule_of(Json schema, const std::string& path) {
  made_.push_back(std::make_unique<const Json>(std::move(schema)));
  return rule(*made_.back(), path);
}

Address SchemaCompiler::body(const Json& schema, const std::string& path) {
  if (schema == true) return text_.value();
  if (schema == false) return builder_.nothing();
  if (!schema.is_object()) refuse("A schema must be an object, true or false.");
  bool says_nothing = true;
  bool only_ref = true;
  for (const auto& [name, value] : schema.items()) {
    if (is_annotation(name)) continue;
    if (keyword(name) == nullptr) {
      refuse(fmt::format("The keyword '{}' is not supported.", name), below(path, name));
    }
    says_nothing = false;
    only_ref = only_ref && name == "$ref";
  }
  if (says_nothing) return text_.value();
  if (schema.contains("$ref") && only_ref) {
    if (!schema["$ref"].is_string()) refuse("'$ref' must be a string.");
    const auto reference = schema["$ref"].get<std::string>();
    return rule(merger_.resolve(reference), reference);
  }
  if (schema.contains("$ref") || schema.contains("allOf")) {
    return rule_of(merger_.flattened(schema), path);
  }
  for (const char* name : {"anyOf", "oneOf"}) {
    if (schema.contains(name)) return union_of(schema, name, path);
  }
  if (schema.contains("enum") || schema.contains("const")) return listed(schema);
  std::vector<std::string> types;
  if (const auto type = schema.find("type"); type != schema.end()) {
    const Json list = type->is_array() ? *type : Json::array({*type});
    for (const auto& item : list) {
      const bool known = item.is_string() && std::find(kTypes.begin(), kTypes.end(),
                                                       item.get<std::string>()) != kTypes.end();
      if (!known) refuse("'type' must be a type of JSON or a list of such.", below(path, "type"));
      types.push_back(item.get<std::string>());
    }
  } else {
    // What only speaks of one type means values of it.
    for (const auto& [name, value] : schema.items()) {
      if (is_annotation(name)) continue;
      const std::string implied(keyword(name)->type);
      if (!implied.empty() && std::find(types.begin(), types.end(), implied) == types.end()) {
        types.push_back(implied);
      }
    }
    if (types.empty()) return text_.value();
  }
  std::vector<Address> targets;
  for (const auto& type : types) targets.push_back(of_type(type, schema, path));
  return builder_.split(std::move(targets));
}

// anyOf and oneOf alike: a text that one of the branches allows.
Address SchemaCompiler::union_of(const Json& schema, const char* keyword, const std::string& path) {
  const Json& branches = schema[keyword];
  const std::string name = below(path, keyword);
  if (!branches.is_array() || branches.empty()) {
    refuse(fmt::format("'{}' must be a list of schemas.", keyword), name);
  }
  Json rest = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (key != keyword && !is_annotation(key)) rest[key] = value;
  }
  std::vector<Address> targets;
  for (size_t i = 0; i < branches.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", name, i);
    targets.push_back(rest.empty() ? rule(branches[i], place) : located(place, [&] {
      return rule_of(merger_.merged(rest, branches[i]), place);
    }));
  }
  return builder_.split(std::move(targets));
}

Address SchemaCompiler::listed(const Json& schema) {
  std::vector<const Json*> values;
  for (const auto& [name, value] : schema.items()) {
    if (is_annotation(name) || name == "type") continue;
    if (name == "const") {
      values.push_back(&value);
    } else if (name == "enum") {
      if (!value.is_array()) refuse("'enum' must be a list.");
      if (value.size() > kMaxListed) refuse("'enum' has too many values.");
      for (const auto& item : value) values.push_back(&item);
    } else {
      refuse(fmt::format("'{}' is not supported beside 'enum' or 'const'.", name));
    }
  }
  if (schema.contains("enum") && schema.contains("const")) {
    return rule_of(merger_.flattened(schema), {});
  }
  std::vector<Address> targets;
  const auto type = schema.find("type");
  for (const Json* value : values) {
    bool fits = type == schema.end();
    if (!fits && type->is_string()) fits = has_type(*value, type->get<std::string>());
    if (!fits && type->is_array()) {
      fits = std::any_of(type->begin(), type->end(), [&](const Json& t) {
        return t.is_string() && has_type(*value, t.get<std::string>());
      });
    }
    if (fits) targets.push_back(builder_.literal(value->dump(), builder_.ret()));
  }
  return builder_.split(std::move(targets));
}

Address SchemaCompiler::of_type(const std::string& type, const Json& schema,
                                const std::string& path) {
  if (type == "object") return object(schema, path);
  if (type == "array") return array(schema, path);
  return scalar(type, schema, path);
}

Address SchemaCompiler::scalar(const std::string& type, const Json& schema,
                               const std::string& path) {
  if (type == "string" || type == "number" || type == "integer") {
    std::string key = type;
    for (const auto& [name, value] : schema.items()) {
      if (!is_annotation(name)) key += " " + name + value.dump();
    }
    const auto [entry, fresh] = scalars_.emplace(std::move(key), 0);
    if (fresh) {
      entry->second = type == "string" ? text(schema, path) : number(schema, type == "integer");
    }
    return entry->second;
  }
  if (type == "null") return builder_.literal("null", builder_.ret());
  return builder_.split(
      {builder_.literal("true", builder_.ret()), builder_.literal("false", builder_.ret())});
}

Address SchemaCompiler::text(const Json& schema, const std::string& path) {
  const uint32_t min = count_of(schema, "minLength").value_or(0);
  const std::optional<uint32_t> max = count_of(schema, "maxLength");
  if (max && *max < min) return builder_.nothing();
  std::optional<CharDfa> dfa;
  auto restrict = [&](CharDfa other) {
    dfa = dfa ? intersection(*dfa, other, text_.effort()) : std::move(other);
  };
  auto named = [&](const char* name, const auto& work) {
    try {
      work();
    } catch (Refused& refused) {
      refuse(fmt::format("'{}' {}", name, refused.error.message), below(path, name));
    }
  };
  if (const auto pattern = schema.find("pattern"); pattern != schema.end()) {
    if (!pattern->is_string()) refuse("'pattern' must be a string.");
    named("pattern", [&] {
      restrict(
          compile_regex(pattern->get_ref<const std::string&>(), Match::somewhere, text_.effort()));
    });
  }
  if (const auto format = schema.find("format"); format != schema.end()) {
    if (!format->is_string()) refuse("'format' must be a string.");
    const auto known = pattern_of_format(format->get<std::string>());
    if (!known) {
      refuse(fmt::format("The format '{}' is not supported.", format->get<std::string>()),
             below(path, "format"));
    }
    named("format", [&] { restrict(compile_regex(*known, Match::whole, text_.effort())); });
  }
  if (!dfa) return text_.string(min, max.value_or(kUnbounded), builder_.ret());
  if (min > 0 || max) {
    named(max ? "maxLength" : "minLength", [&] { restrict(of_length(min, max)); });
  }
  return text_.string(*dfa, builder_.ret());
}

Address SchemaCompiler::number(const Json& schema, bool integer) {
  NumberBounds bounds{.integer = integer,
                      .minimum = {},
                      .maximum = {},
                      .exclusive_minimum = {},
                      .exclusive_maximum = {}};
  for (const auto& [name, bound] :
       {std::pair("minimum", &bounds.minimum), std::pair("maximum", &bounds.maximum),
        std::pair("exclusiveMinimum", &bounds.exclusive_minimum),
        std::pair("exclusiveMaximum", &bounds.exclusive_maximum)}) {
    const auto member = schema.find(name);
    if (member == schema.end()) continue;
    if (!member->is_number()) refuse(fmt::format("'{}' must be a number.", name));
    *bound = *member;
  }
  return text_.plain(number_within(bounds, text_.effort()), builder_.ret());
}

// The properties in the schema's order, each there or, where it is not required, left out; then
// any others.
Address SchemaCompiler::object(const Json& schema, const std::string& path) {
  const std::string within = below(path, "properties");
  const auto listed = schema.find("properties");
  if (listed != schema.end() && !listed->is_object()) refuse("'properties' must be an object.");
  const auto extra = schema.find("additionalProperties");
  // Left out it means that any may follow; a model that is asked for certain properties should be
  // able to end.
  const bool open = extra == schema.end() ? listed == schema.end() : *extra != false;

  struct Property {
    std::string name;
    Address value;
    bool required = false;
  };
  std::vector<Property> properties;
  std::vector<std::u32string> names;
  if (listed != schema.end()) {
    if (listed->size() > kMaxProperties) refuse("'properties' has too many members.");
    for (const auto& [name, value] : listed->items()) {
      properties.push_back({name, rule(value, below(within, name)), false});
    }
  }
  const Address other =
      !open ? builder_.nothing()
            : (extra == schema.end() ? text_.value()
                                     : rule(*extra, below(path, "additionalProperties")));
  if (const auto required = schema.find("required"); required != schema.end()) {
    if (!required->is_array()) refuse("'required' must be a list of names.");
    if (required->size() > kMaxProperties) refuse("'required' has too many names.");
    for (const auto& name : *required) {
      if (!name.is_string()) refuse("'required' must be a list of names.");
      const auto text = name.get<std::string>();
      auto known = std::find_if(properties.begin(), properties.end(),
                                [&](const Property& p) { return p.name == text; });
      if (known == properties.end()) {
        const bool free = extra == schema.end();
        properties.push_back({text, free ? text_.value() : other, true});
      } else {
        known->required = true;
      }
    }
  }
  if (properties.empty() && open && extra == schema.end()) return text_.object();

  for (const auto& property : properties) names.push_back(characters_of(property.name));
  const auto member = [&](Address value, Address next) {
    return text_.space(builder_.byte(':', text_.space(builder_.call(value, next))));
  };
  // From the last to the first: `more` is where another member must come, `done` where one has
  // ended. Both are before the property that is looked at.
  const Address close = builder_.byte('}', builder_.ret());
  Address more = builder_.nothing();
  Address done = close;
  if (open) {
    done = builder_.reserve();
    const Address key_done = member(other, text_.space(done));
    more = properties.empty() ? text_.string(0, kUnbounded, key_done)
                              : text_.string(all_but(names), key_done);
    builder_.define(done, builder_.split({close, builder_.byte(',', text_.space(more))}));
  }
  bool may_close = true;
  for (size_t i = properties.size(); i-- > 0;) {
    const auto& property = properties[i];
    const Address one =
        builder_.literal(Json(property.name).dump(), member(property.value, text_.space(done)));
    more = property.required ? one : builder_.split({one, more});
    may_close = may_close && !property.required;
    const Address next = builder_.byte(',', text_.space(more));
    done = may_close ? builder_.split({close, next}) : next;
  }
  const Address first = may_close ? builder_.split({close, more}) : more;
  return builder_.byte('{', text_.space(first));
}

Address SchemaCompiler::array(const Json& schema, const std::string& path) {
  const uint32_t min = count_of(schema, "minItems").value_or(0);
  const std::optional<uint32_t> limit = count_of(schema, "maxItems");
  if (const auto unique = schema.find("uniqueItems"); unique != schema.end() && *unique != false) {
    refuse("The keyword 'uniqueItems' is not supported.", below(path, "uniqueItems"));
  }
  if (limit && *limit < min) return builder_.nothing();
  const uint32_t max = limit.value_or(kUnbounded);
  const auto items = schema.find("items");
  if (items != schema.end() && items->is_array()) {
    refuse("'items' must be a schema; a list of them is 'prefixItems'.", below(path, "items"));
  }
  const Address item = items == schema.end() ? text_.value() : rule(*items, below(path, "items"));
  std::vector<Address> prefix;
  if (const auto list = schema.find("prefixItems"); list != schema.end()) {
    if (!list->is_array()) refuse("'prefixItems' must be a list of schemas.");
    if (list->size() > kMaxPrefixItems) refuse("'prefixItems' has too many members.");
    for (size_t i = 0; i < list->size(); ++i) {
      prefix.push_back(rule((*list)[i], fmt::format("{}[{}]", below(path, "prefixItems"), i)));
    }
  }
  // The first is an item like those after the prefix where there is no prefix.
  if (prefix.empty()) prefix.push_back(item);
  const auto fixed = static_cast<uint32_t>(prefix.size());
  const Address close = builder_.byte(']', builder_.ret());
  // `done`: where item i - 1 has ended.
  Address done = close;
  if (max > fixed) {
    const Address round =
        builder_.byte(',', text_.space(builder_.call(item, text_.space(builder_.ret()))));
    done = builder_.repeat(round, min > fixed ? min - fixed : 0,
                           max == kUnbounded ? kUnbounded : max - fixed, close);
  }
  for (uint32_t i = fixed; i-- > 0;) {
    const Address one = i < max ? builder_.call(prefix[i], text_.space(done)) : builder_.nothing();
    const Address next = i == 0 ? one : builder_.byte(',', text_.space(one));
    done = i >= min ? builder_.split({close, next}) : next;
  }
  return builder_.byte('[', text_.space(done));
}

}  // namespace flexllm::server::grammar
