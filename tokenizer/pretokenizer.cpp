#include "tokenizer/pretokenizer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string>

#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {
namespace {

using Stage = PreTokenizer::Stage;
using nlohmann::json;

// The patterns that the models were trained with.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kOneDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr int kMaxNesting = 16;

struct Named {
  std::string_view name;
  std::array<std::string_view, 2> patterns;  // the second may be empty
};
constexpr Named kNamed[] = {
    {"", {kGpt2, {}}},
    {"gpt-2", {kGpt2, {}}},
    {"gpt2", {kGpt2, {}}},
    {"smollm", {kOneDigit, kGpt2}},
    {"starcoder", {kOneDigit, kGpt2}},
    {"refact", {kOneDigit, kGpt2}},
    {"command-r", {kOneDigit, kGpt2}},
    {"llama-bpe", {kLlama3, {}}},
    {"llama3", {kLlama3, {}}},
    {"llama-v3", {kLlama3, {}}},
    {"qwen2", {kQwen2, {}}},
    {"deepseek-r1-qwen", {kQwen2, {}}},
};

std::string escaped(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    const bool plain =
        static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c));
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

const json& field(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) {
    throw Error("tokenizer.json: pre_tokenizer has no '" + std::string(name) + "'");
  }
  return *found;
}

Stage stage_of_split(const json& split) {
  const json& pattern = field(split, "pattern");
  const std::string behavior = field(split, "behavior").get<std::string>();
  const bool invert = split.value("invert", false);
  std::string regex;
  if (pattern.contains("Regex")) {
    regex = pattern.at("Regex").get<std::string>();
  } else {
    regex = escaped(field(pattern, "String").get<std::string>());
  }
  if (behavior == "Isolated") return {Regex(regex), Stage::Keep::matches_and_gaps};
  if (behavior == "Removed") {
    return {Regex(regex), invert ? Stage::Keep::matches : Stage::Keep::gaps};
  }
  throw Error("tokenizer.json: pre_tokenizer Split with behavior '" + behavior +
              "' is not supported");
}

void apply(const Stage& stage, std::string_view piece, std::vector<std::string_view>& out) {
  Regex::Search search(stage.regex, piece);
  Regex::Match match{};
  size_t done = 0;
  const auto gap = [&](size_t end) {
    if (end > done && stage.keep != Stage::Keep::matches)
      out.push_back(piece.substr(done, end - done));
  };
  while (search.next(match)) {
    gap(match.begin);
    if (stage.keep != Stage::Keep::gaps) {
      out.push_back(piece.substr(match.begin, match.end - match.begin));
    }
    done = match.end;
  }
  gap(piece.size());
}

}  // namespace

PreTokenizer PreTokenizer::by_name(std::string_view name) {
  const auto* found = std::find_if(std::begin(kNamed), std::end(kNamed),
                                   [&](const Named& named) { return named.name == name; });
  if (found == std::end(kNamed)) {
    std::string known;
    for (const Named& named : kNamed) {
      if (!named.name.empty()) known += (known.empty() ? "" : ", ") + std::string(named.name);
    }
    throw Error("pre-tokenizer '" + std::string(name) + "' is not supported (known: " + known +
                ")");
  }
  PreTokenizer result;
  for (const std::string_view pattern : found->patterns) {
    if (!pattern.empty()) result.stages_.push_back({Regex(pattern)});
  }
  return result;
}

PreTokenizer PreTokenizer::from_json(const json& json) {
  PreTokenizer result;
  result.add_json(json, 0);
  return result;
}

void PreTokenizer::add_json(const json& json, int depth) {
  if (depth > kMaxNesting) throw Error("tokenizer.json: pre_tokenizer is nested too deeply");
  if (json.is_null()) return;
  const std::string type = field(json, "type").get<std::string>();
  if (type == "Sequence") {
    for (const auto& step : field(json, "pretokenizers")) add_json(step, depth + 1);
  } else if (type == "Split") {
    stages_.push_back(stage_of_split(json));
  } else if (type == "Digits") {
    stages_.push_back({Regex(json.value("individual_digits", false) ? kOneDigit : kDigits)});
  } else if (type == "ByteLevel") {
    if (json.value("add_prefix_space", true)) {
      throw Error("tokenizer.json: pre_tokenizer ByteLevel with add_prefix_space is not supported");
    }
    if (json.value("use_regex", true)) stages_.push_back({Regex(kGpt2)});
  } else {
    throw Error("tokenizer.json: pre_tokenizer '" + type + "' is not supported");
  }
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  pieces.push_back(text);
  std::vector<std::string_view> next;
  for (const Stage& stage : stages_) {
    next.clear();
    for (const std::string_view piece : pieces) apply(stage, piece, next);
    pieces.swap(next);
  }
  return pieces;
}

bool is_llama3_name(std::string_view name) {
  return name == "llama-bpe" || name == "llama3" || name == "llama-v3";
}

}  // namespace flexllm::tokenizer
