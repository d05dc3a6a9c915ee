#include "formats/hugging_face_tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "formats/error.h"
#include "formats/mapped_file.h"

namespace flexllm::formats {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTokenizerBytes = 64 << 20;
constexpr uint64_t kMaxTokenizerConfigBytes = 8 << 20;
constexpr uint64_t kMaxTemplateBytes = 1 << 20;

std::string read_text(const fs::path& path, uint64_t max_bytes) {
  const MappedFile file(path);
  if (file.bytes().size() > max_bytes) {
    throw Error(path, "its size", "at most " + std::to_string(max_bytes) + " bytes are accepted");
  }
  return std::string(file.text());
}

// A normalizer, pre-tokenizer, post-processor or decoder of tokenizer.json of the given type,
// directly or as a step of a sequence; nullptr when there is none.
const Json* find_step(const Json* component, std::string_view type) {
  if (component == nullptr || !component->is_object()) return nullptr;
  const auto name = component->find("type");
  if (name == component->end() || !name->is_string()) return nullptr;
  if (*name == type) return component;
  if (*name != "Sequence") return nullptr;
  for (const char* steps : {"normalizers", "pretokenizers", "processors", "decoders"}) {
    const auto list = component->find(steps);
    if (list == component->end() || !list->is_array()) continue;
    for (const Json& step : *list) {  // sequences inside sequences: depth is limited by the parser
      if (const Json* found = find_step(&step, type)) return found;
    }
  }
  return nullptr;
}

class Reader {
 public:
  Reader(const fs::path& folder, const JsonObject& config, uint32_t vocab)
      : folder_(folder), config_(config), vocab_(vocab) {}

  TokenizerSource read() {
    const fs::path json_path = folder_ / "tokenizer.json";
    const fs::path model_path = folder_ / "tokenizer.model";
    const bool has_model = is_file(model_path);
    if (is_file(json_path)) {
      read_tokenizer_json(json_path, has_model);
    } else if (has_model) {
      source_.kind = TokenizerSource::Kind::sentencepiece;
    } else {
      throw Error(folder_, "tokenizer", "expected tokenizer.json or tokenizer.model");
    }
    if (source_.kind == TokenizerSource::Kind::sentencepiece) {
      source_.sentencepiece_model = read_text(model_path, kMaxTokenizerBytes);
    }
    const fs::path config_path = folder_ / "tokenizer_config.json";
    Json json = Json::object();
    if (is_file(config_path)) json = parse(config_path, kMaxTokenizerConfigBytes);
    read_tokenizer_config(JsonObject(config_path, "", json));
    const fs::path template_path = folder_ / "chat_template.jinja";
    if (is_file(template_path)) {
      std::erase_if(source_.chat_templates, [](const auto& t) { return t.name == "default"; });
      source_.chat_templates.insert(source_.chat_templates.begin(),
                                    {"default", read_text(template_path, kMaxTemplateBytes)});
    }
    return std::move(source_);
  }

 private:
  static Json parse(const fs::path& path, uint64_t max_bytes) {
    return parse_json(path, "the document", MappedFile(path).text(), max_bytes);
  }

  // Byte-level BPE is read from here. Anything else is a SentencePiece model in translation, so its
  // original is preferred where it stands beside; only a BPE can do without.
  void read_tokenizer_json(const fs::path& path, bool has_model) {
    const Json json = parse(path, kMaxTokenizerBytes);
    const JsonObject root(path, "", json);
    const JsonObject model = root.object("model");
    const std::string type = model.find_string("type").value_or("BPE");
    const bool byte_level = find_step(root.find("pre_tokenizer"), "ByteLevel") != nullptr ||
                            find_step(root.find("decoder"), "ByteLevel") != nullptr;
    if (has_model && !(type == "BPE" && byte_level)) {
      source_.kind = TokenizerSource::Kind::sentencepiece;
      source_.byte_fallback = model.find_bool("byte_fallback").value_or(false);
    } else if (type == "BPE") {
      source_.kind = TokenizerSource::Kind::bpe;
      source_.byte_level = byte_level;
      source_.byte_fallback = model.find_bool("byte_fallback").value_or(false);
      source_.ignore_merges = model.find_bool("ignore_merges").value_or(false);
      source_.tokenizer_json = read_text(path, kMaxTokenizerBytes);
      read_vocabulary(model);
      read_merges(model);
    } else {
      model.fail("type", "tokenizer model '" + type + "' is not supported without tokenizer.model");
    }
    read_added_tokens(root);
    read_affixes(root.find("post_processor"));
  }

  uint32_t id(const JsonObject& object, std::string_view key, const Json& json) const {
    const auto number = as_u32(json);
    if (!number || *number >= vocab_) {
      object.fail(key, "expected a token id below " + std::to_string(vocab_));
    }
    return *number;
  }

  void place_token(const JsonObject& object, uint32_t token_id, const std::string& text,
                   TokenType type) {
    if (token_id >= source_.tokens.size()) {
      source_.tokens.resize(token_id + size_t{1});
      source_.types.resize(token_id + size_t{1}, TokenType::unused);
    }
    std::string& place = source_.tokens[token_id];
    if (source_.types[token_id] != TokenType::unused && place != text) {
      object.fail(text, "token " + std::to_string(token_id) + " is already '" + place + "'");
    }
    place = text;
    source_.types[token_id] = type;
  }

  void read_vocabulary(const JsonObject& model) {
    const JsonObject vocabulary = model.object("vocab");
    for (const auto& [text, value] : vocabulary.json().items()) {
      place_token(vocabulary, id(vocabulary, text, value), text, TokenType::normal);
    }
  }

  void read_merges(const JsonObject& model) {
    const Json* merges = model.find_array("merges");
    if (merges == nullptr) model.fail("merges", "it is missing");
    for (const Json& merge : *merges) {
      if (merge.is_string()) {
        source_.merges.push_back(merge.get<std::string>());
        continue;
      }
      const bool is_pair =
          merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      const std::string left = is_pair ? merge[0].get<std::string>() : "";
      const std::string right = is_pair ? merge[1].get<std::string>() : "";
      if (!is_pair || left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
        model.fail("merges", "entry " + std::to_string(source_.merges.size()) +
                                 ": expected \"left right\" or [left, right] without spaces");
      }
      source_.merges.push_back(left + " " + right);
    }
  }

  void add_token(const JsonObject& object, std::string text, uint32_t token_id) {
    AddedToken token;
    token.id = token_id;
    token.special = object.find_bool("special").value_or(false);
    token.normalized = object.find_bool("normalized").value_or(!token.special);
    token.lstrip = object.find_bool("lstrip").value_or(false);
    token.rstrip = object.find_bool("rstrip").value_or(false);
    token.single_word = object.find_bool("single_word").value_or(false);
    token.text = std::move(text);
    if (source_.kind == TokenizerSource::Kind::bpe) {
      place_token(object, token_id, token.text,
                  token.special ? TokenType::control : TokenType::user_defined);
    }
    source_.added_tokens.push_back(std::move(token));
  }

  void sort_added_tokens() { std::ranges::sort(source_.added_tokens, {}, &AddedToken::id); }

  void read_added_tokens(const JsonObject& root) {
    const Json* list = root.find_array("added_tokens");
    if (list == nullptr) return;
    for (size_t i = 0; i < list->size(); ++i) {
      const JsonObject object(root.file(), "added_tokens." + std::to_string(i), (*list)[i]);
      const Json* token_id = object.find("id");
      if (token_id == nullptr) object.fail("id", "it is missing");
      add_token(object, object.string("content"), id(object, "id", *token_id));
    }
    sort_added_tokens();
  }

  // "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}] puts <s> first.
  void read_affixes(const Json* post_processor) {
    source_.add_bos = false;
    source_.add_eos = false;
    const Json* step = find_step(post_processor, "TemplateProcessing");
    if (step == nullptr) return;
    const auto single = step->find("single");
    if (single == step->end() || !single->is_array()) return;
    bool after_text = false;
    for (const Json& piece : *single) {
      if (!piece.is_object()) continue;
      if (piece.contains("Sequence")) after_text = true;
      if (piece.contains("SpecialToken")) (after_text ? source_.add_eos : source_.add_bos) = true;
    }
  }

  // The id of the token that tokenizer_config.json names under `key` ("bos_token"); where it names
  // none, or one that is only inside tokenizer.model, the id in config.json ("bos_token_id").
  std::optional<uint32_t> read_special(const JsonObject& object, const std::string& key) const {
    if (object.json().contains(key) && object.find(key) == nullptr) return std::nullopt;  // null
    if (const Json* value = object.find(key)) {
      const std::string text =
          value->is_string() ? value->get<std::string>() : object.object(key).string("content");
      for (const AddedToken& token : source_.added_tokens) {
        if (token.text == text) return token.id;
      }
      const auto found = std::ranges::find(source_.tokens, text);
      if (found != source_.tokens.end()) {
        return static_cast<uint32_t>(found - source_.tokens.begin());
      }
    }
    const Json* stated = config_.find(key + "_id");
    if (stated != nullptr && stated->is_array() && !stated->empty()) stated = &stated->front();
    if (stated == nullptr || *stated == -1) return std::nullopt;  // -1: "none", as some write it
    return id(config_, key + "_id", *stated);
  }

  void read_tokenizer_config(const JsonObject& object) {
    const auto decoder = object.find_object("added_tokens_decoder");
    if (source_.added_tokens.empty() && decoder) {
      for (const auto& [key, value] : decoder->json().items()) {
        const JsonObject token = decoder->object(key);
        const Json number = Json::parse(key, nullptr, false);
        add_token(token, token.string("content"), id(*decoder, key, number));
      }
      sort_added_tokens();
    }
    source_.bos_id = read_special(object, "bos_token");
    source_.eos_id = read_special(object, "eos_token");
    source_.unk_id = read_special(object, "unk_token");
    source_.pad_id = read_special(object, "pad_token");
    if (const auto add = object.find_bool("add_bos_token")) source_.add_bos = add;
    if (const auto add = object.find_bool("add_eos_token")) source_.add_eos = add;
    source_.add_space_prefix = object.find_bool("add_prefix_space");
    read_chat_templates(object);
  }

  void read_chat_templates(const JsonObject& object) {
    const Json* value = object.find("chat_template");
    if (value == nullptr) return;
    if (value->is_string()) {
      source_.chat_templates.push_back({"default", value->get<std::string>()});
      return;
    }
    if (!value->is_array()) {
      object.fail("chat_template", "expected a string or a list of named templates");
    }
    for (size_t i = 0; i < value->size(); ++i) {
      const JsonObject entry(object.file(), "chat_template." + std::to_string(i), (*value)[i]);
      source_.chat_templates.push_back({entry.string("name"), entry.string("template")});
    }
    std::ranges::stable_partition(source_.chat_templates,
                                  [](const auto& t) { return t.name == "default"; });
  }

  fs::path folder_;
  const JsonObject& config_;
  uint32_t vocab_;
  TokenizerSource source_;
};

}  // namespace

TokenizerSource read_hugging_face_tokenizer(const fs::path& folder, const JsonObject& config,
                                            uint32_t vocab) {
  return Reader(folder, config, vocab).read();
}

}  // namespace flexllm::formats
