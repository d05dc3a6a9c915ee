#include "server/api/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace flexllm::server {
namespace {

// Byte offset of the bracket that opens level `max_depth` + 1, or npos. Brackets inside strings do
// not count. Done before parsing, because destroying a deep value is what would overflow the stack.
size_t too_deep_at(std::string_view text, size_t max_depth) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return i;
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    }
  }
  return std::string_view::npos;
}

constexpr std::array<std::string_view, 2> kOrdered{"response_format", "tools"};

size_t most_members(const nlohmann::json& value) {
  size_t most = value.is_object() ? value.size() : 0;
  if (value.is_structured()) {
    for (const auto& item : value) most = std::max(most, most_members(item));
  }
  return most;
}

}  // namespace

tl::expected<RequestBody, std::string> parse_body(std::string_view text) {
  auto fields = parse_json(text);
  if (!fields) return tl::unexpected(std::move(fields.error()));
  RequestBody body{.fields = std::move(*fields), .ordered = nlohmann::ordered_json::object()};
  bool any = false;
  for (const auto name : kOrdered) {
    const auto member = body.fields.is_object() ? body.fields.find(name) : body.fields.end();
    if (member == body.fields.end()) continue;
    if (most_members(*member) > kMaxOrderedMembers) {
      return tl::unexpected("An object in '" + std::string(name) + "' has more than " +
                            std::to_string(kMaxOrderedMembers) + " members.");
    }
    any = true;
  }
  if (!any) return body;
  using Parser = nlohmann::ordered_json;
  body.ordered = Parser::parse(text, [](int depth, Parser::parse_event_t event, Parser& parsed) {
    if (depth != 1 || event != Parser::parse_event_t::key) return true;
    return std::find(kOrdered.begin(), kOrdered.end(), parsed.get_ref<std::string&>()) !=
           kOrdered.end();
  });
  return body;
}

std::optional<nlohmann::ordered_json> parse_ordered(std::string_view text) {
  const auto value = parse_json(text);
  if (!value || most_members(*value) > kMaxOrderedMembers) return std::nullopt;
  return nlohmann::ordered_json::parse(text);
}

tl::expected<nlohmann::json, std::string> parse_json(std::string_view text, size_t max_depth) {
  if (const size_t at = too_deep_at(text, max_depth); at != std::string_view::npos) {
    return tl::unexpected("JSON is nested deeper than " + std::to_string(max_depth) +
                          " levels at byte " + std::to_string(at) + ".");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    const bool utf8 = std::string_view(error.what()).find("UTF-8") != std::string_view::npos;
    return tl::unexpected(std::string(utf8 ? "Text is not valid UTF-8" : "Body is not valid JSON") +
                          " at byte " + std::to_string(error.byte) + ".");
  } catch (const nlohmann::json::exception&) {  // a number that no type holds
    return tl::unexpected(std::string("A number is out of range."));
  }
}

std::optional<int64_t> integer_of(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return std::in_range<int64_t>(number) ? std::optional(static_cast<int64_t>(number))
                                          : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  // A literal below int64 was rounded to -2^63, so that one is not taken.
  const bool integral = number > -0x1p63 && number < 0x1p63 && std::trunc(number) == number;
  return integral ? std::optional(static_cast<int64_t>(number)) : std::nullopt;
}

std::string dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace flexllm::server
