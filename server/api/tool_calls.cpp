#include "server/api/tool_calls.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/api/json.h"

namespace flexllm::server {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kHermesBegin = "<tool_call>";
constexpr std::string_view kHermesEnd = "</tool_call>";
constexpr std::string_view kMistralBegin = "[TOOL_CALLS]";

// The longest end of `text` that begins `marker`.
size_t beginning_of(std::string_view marker, std::string_view text) {
  for (size_t n = std::min(marker.size() - 1, text.size()); n > 0; --n) {
    if (text.ends_with(marker.substr(0, n))) return n;
  }
  return 0;
}

// Where `marker` stands outside of the strings of the JSON that `text` begins with.
size_t find_outside_strings(std::string_view marker, std::string_view text) {
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (inside && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      inside = !inside;
    } else if (!inside && text.substr(i).starts_with(marker)) {
      return i;
    }
  }
  return std::string_view::npos;
}

std::optional<ToolCall> call_of(const ordered_json& value, const std::vector<std::string>& names) {
  if (!value.is_object()) return std::nullopt;
  const auto name = value.find("name");
  if (name == value.end() || !name->is_string()) return std::nullopt;
  ToolCall call{.id = {}, .name = name->get<std::string>(), .arguments = "{}"};
  if (std::find(names.begin(), names.end(), call.name) == names.end()) return std::nullopt;
  for (const char* member : {"arguments", "parameters"}) {
    const auto arguments = value.find(member);
    if (arguments == value.end()) continue;
    if (!arguments->is_object()) return std::nullopt;
    call.arguments = dump(*arguments);
    break;
  }
  return call;
}

}  // namespace

ToolCallParser::Piece ToolCallParser::push(std::string_view text, bool last) {
  Piece out;
  held_ += text;
  if (use_.format == ToolFormat::llama) {
    scan_bare(out, last);
  } else {
    scan_marked(out, last);
  }
  if (!last) return out;
  show(std::exchange(held_, {}), out);
  if (!called_) out.content += space_;
  return out;
}

// White space around calls is not shown.
void ToolCallParser::show(std::string_view text, Piece& out) {
  const size_t end = text.find_last_not_of(kSpace) + 1;
  if (end > 0) {
    out.content += std::exchange(space_, {});
    out.content += text.substr(0, end);
  }
  space_ += text.substr(end);
}

// The calls in `text`: one, several with ';' or nothing between them, or a list. False if it is
// something else.
bool ToolCallParser::take_calls(std::string_view text, Piece& out) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return false;
  text = text.substr(first, text.find_last_not_of(kSpace) + 1 - first);
  auto values = parse_ordered(text);
  if (!values && use_.format == ToolFormat::llama) {
    std::string list(text);
    for (size_t at = 0; (at = list.find("};", at)) != std::string::npos;) list[at + 1] = ',';
    values = parse_ordered("[" + list + "]");
  }
  if (!values) return false;
  if (!values->is_array()) values = ordered_json::array({*values});
  std::vector<ToolCall> calls;
  for (const auto& value : *values) {
    auto call = call_of(value, use_.names);
    if (!call) return false;
    calls.push_back(std::move(*call));
  }
  if (calls.empty()) return false;
  if (!use_.parallel) calls.resize(called_ ? 0 : 1);
  called_ = true;
  space_.clear();
  std::move(calls.begin(), calls.end(), std::back_inserter(out.calls));
  return true;
}

void ToolCallParser::scan_marked(Piece& out, bool last) {
  const bool mistral = use_.format == ToolFormat::mistral;
  const std::string_view begin = mistral ? kMistralBegin : kHermesBegin;
  while (true) {
    const size_t at = held_.find(begin);
    if (at == std::string::npos) {
      if (last) return;
      const size_t kept = beginning_of(begin, held_);
      show(std::string_view(held_).substr(0, held_.size() - kept), out);
      held_.erase(0, held_.size() - kept);
      return;
    }
    show(std::string_view(held_).substr(0, at), out);
    held_.erase(0, at);
    const std::string rest = held_.substr(begin.size());
    const size_t end =
        mistral ? (last ? rest.size() : std::string::npos) : find_outside_strings(kHermesEnd, rest);
    if (end == std::string::npos) return;
    const std::string inner = rest.substr(0, end);
    const size_t whole = begin.size() + end + (mistral ? 0 : kHermesEnd.size());
    if (!take_calls(inner, out)) show(std::string_view(held_).substr(0, whole), out);
    held_.erase(0, whole);
  }
}

void ToolCallParser::scan_bare(Piece& out, bool last) {
  if (!plain_) {
    const size_t first = held_.find_first_not_of(kSpace);
    if (first == std::string::npos) return;
    plain_ = held_[first] != '{';
  }
  if (plain_) {
    show(std::exchange(held_, {}), out);
  } else if (last && take_calls(held_, out)) {
    held_.clear();
  }
}

}  // namespace flexllm::server
