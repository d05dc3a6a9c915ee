#include "tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {
namespace {

using nlohmann::json;

const json& part(const json& object, const char* name) {
  static const json kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

// Which tokens a TemplateProcessing puts before and after the one sequence `A`.
void read_template(const json& processor, TokenizerJson& result) {
  std::vector<uint32_t> before;
  std::vector<uint32_t> after;
  bool passed = false;
  for (const json& piece : processor.at("single")) {
    if (piece.contains("Sequence")) {
      passed = true;
      continue;
    }
    const auto name = piece.at("SpecialToken").at("id").get<std::string>();
    for (const json& id : processor.at("special_tokens").at(name).at("ids")) {
      (passed ? after : before).push_back(id.get<uint32_t>());
    }
  }
  result.before = std::move(before);
  result.after = std::move(after);
}

void read_post_processor(const json& processor, TokenizerJson& result) {
  if (processor.is_null()) return;
  const auto type = processor.at("type").get<std::string>();
  if (type == "TemplateProcessing") {
    read_template(processor, result);
  } else if (type == "Sequence") {
    for (const json& step : processor.at("processors")) {
      if (step.at("type") == "TemplateProcessing") read_template(step, result);
    }
  } else if (type != "ByteLevel") {  // which only moves offsets
    throw Error("tokenizer.json: post_processor '" + type + "' is not supported");
  }
}

TokenizerJson read(const json& root) {
  TokenizerJson result;
  const json& model = part(root, "model");
  const json& splitting = part(root, "pre_tokenizer");
  result.normalizer = Normalizer::from_json(part(root, "normalizer"), splitting);
  if (!is_metaspace(splitting)) result.pre_tokenizer = PreTokenizer::from_json(splitting);
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = part(model, name);
    if (!value.is_null() && value != "") {
      throw Error("tokenizer.json: model." + std::string(name) + " is not supported");
    }
  }
  if (const json& unknown = part(model, "unk_token"); !unknown.is_null()) {
    result.unknown = unknown.get<std::string>();
  }
  if (const json& fuse = part(model, "fuse_unk"); !fuse.is_null()) {
    result.fuse_unknown = fuse.get<bool>();
  }
  read_post_processor(part(root, "post_processor"), result);
  return result;
}

}  // namespace

TokenizerJson read_tokenizer_json(const std::string& text) {
  try {
    return read(json::parse(text));
  } catch (const json::exception& error) {
    throw Error("tokenizer.json: " + std::string(error.what()));
  }
}

}  // namespace flexllm::tokenizer
