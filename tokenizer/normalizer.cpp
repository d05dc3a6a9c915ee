#include "tokenizer/normalizer.h"

#include <nlohmann/json.hpp>

#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

namespace flexllm::tokenizer {
namespace {

using nlohmann::json;

constexpr int kMaxNesting = 16;

std::string replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, done)) {
    out.append(text, done, at - done).append(with);
    done = at + what.size();
  }
  return out.append(text, done);
}

}  // namespace

bool is_metaspace(const json& pre_tokenizer) {
  return pre_tokenizer.is_object() && pre_tokenizer.value("type", "") == "Metaspace";
}

Normalizer Normalizer::from_json(const json& normalizer, const json& pre_tokenizer) {
  Normalizer result;
  result.add_json(normalizer, 0);
  if (is_metaspace(pre_tokenizer)) {
    if (pre_tokenizer.value("split", true)) {
      throw Error("tokenizer.json: pre_tokenizer Metaspace with split is not supported");
    }
    const auto replacement = pre_tokenizer.at("replacement").get<std::string>();
    const auto scheme = pre_tokenizer.value("prepend_scheme", "always");
    result.steps_.push_back(Replace{" ", replacement});
    if (scheme != "never") result.steps_.push_back(Prepend{replacement, scheme == "first", true});
  }
  return result;
}

void Normalizer::add_json(const json& json, int depth) {
  if (json.is_null()) return;
  if (depth > kMaxNesting) throw Error("tokenizer.json: normalizer is nested too deeply");
  const auto type = json.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const auto& step : json.at("normalizers")) add_json(step, depth + 1);
  } else if (type == "Prepend") {
    steps_.push_back(Prepend{json.at("prepend").get<std::string>(), false, false});
  } else if (type == "Replace" && json.at("pattern").contains("String")) {
    Replace step{json.at("pattern").at("String").get<std::string>(),
                 json.at("content").get<std::string>()};
    if (step.what.empty()) throw Error("tokenizer.json: normalizer replaces an empty string");
    steps_.push_back(std::move(step));
  } else if (type == "NFC") {
    steps_.push_back(Compose{});
  } else {
    throw Error("tokenizer.json: normalizer '" + type + "' is not supported");
  }
}

bool Normalizer::adds_space() const {
  for (const Step& step : steps_) {
    if (std::holds_alternative<Prepend>(step)) return true;
  }
  return false;
}

std::string Normalizer::apply(std::string_view text, bool at_text_start) const {
  std::string result(text);
  for (const Step& step : steps_) {
    if (const auto* prepend = std::get_if<Prepend>(&step)) {
      const bool wanted = (at_text_start || !prepend->only_at_text_start) &&
                          !(prepend->unless_there && result.starts_with(prepend->prefix));
      if (wanted && !result.empty()) result.insert(0, prepend->prefix);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      result = replaced(result, replace->what, replace->with);
    } else {
      result = to_nfc(result);
    }
  }
  return result;
}

}  // namespace flexllm::tokenizer
