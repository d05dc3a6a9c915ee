#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace flexllm::tokenizer {

using formats::AddedToken;
using formats::TokenizerSource;
using formats::TokenType;

namespace {

// Positions in a pre-token are 32-bit numbers.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Control tokens that end a turn or a text, in the families that we serve.
constexpr std::array<std::string_view, 8> kStopNames = {
    "<|im_end|>",    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>",
    "<|endoftext|>", "</s>",       "<|end|>",    "<end_of_turn>",
};

std::vector<uint32_t> ids_if(bool wanted, const std::optional<uint32_t>& id) {
  return wanted && id ? std::vector{*id} : std::vector<uint32_t>{};
}

// The added tokens of the source, and control tokens that it does not list among them.
std::vector<AddedToken> all_added(const TokenizerSource& source,
                                  const std::vector<Token>& vocabulary) {
  std::vector<AddedToken> added = source.added_tokens;
  std::vector<bool> listed(vocabulary.size());
  for (const AddedToken& token : added) listed[token.id] = true;
  for (uint32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary[id].type == TokenType::control && !listed[id]) {
      added.push_back({.id = id, .text = vocabulary[id].bytes, .special = true});
    }
  }
  for (AddedToken& token : added) token.special = vocabulary[token.id].special;
  return added;
}

}  // namespace

struct Tokenizer::Parts {
  std::vector<Token> vocabulary;
  std::unique_ptr<const SubwordModel> model;
  std::optional<AddedTokens> added;
  std::vector<TokenId> before;  // what the configuration puts around a text
  std::vector<TokenId> after;
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::vector<TokenId> stops;
  bool drops_first_space = false;  // encoding put it there

  void build_bpe(const TokenizerSource& source);
  void build_sentencepiece(TokenizerSource source);
  void finish(const TokenizerSource& source, std::vector<AddedToken> tokens);
  void encode_parts(std::string_view text, SpecialTokens special,
                    std::span<const TextRange> untrusted, std::vector<TokenId>& ids) const;
};

void Tokenizer::Parts::build_bpe(const TokenizerSource& source) {
  vocabulary = read_vocabulary(source);
  BpeModel::Rules rules;
  rules.ignore_merges = source.ignore_merges;
  bool starts_with_bos = false;
  if (source.tokenizer_json.empty()) {
    if (!source.byte_level) throw Error("a BPE vocabulary without tokenizer.json is byte-level");
    rules.pre_tokenizer = PreTokenizer::by_name(source.pre_tokenizer);
    starts_with_bos = is_llama3_name(source.pre_tokenizer);
    rules.ignore_merges = rules.ignore_merges || starts_with_bos;
  } else {
    TokenizerJson json = read_tokenizer_json(source.tokenizer_json);
    rules.normalizer = std::move(json.normalizer);
    rules.pre_tokenizer = std::move(json.pre_tokenizer);
    rules.fuse_unknown = json.fuse_unknown;
    if (json.unknown) {
      const auto found = std::find(source.tokens.begin(), source.tokens.end(), *json.unknown);
      if (found != source.tokens.end()) {
        rules.unknown = static_cast<uint32_t>(found - source.tokens.begin());
      }
    }
    if (json.before) before = *json.before;
    if (json.after) after = *json.after;
  }
  if (source.tokenizer_json.empty() || source.add_bos) {
    before = ids_if(source.add_bos.value_or(starts_with_bos), source.bos_id);
  }
  if (source.tokenizer_json.empty() || source.add_eos) {
    after = ids_if(source.add_eos.value_or(false), source.eos_id);
  }
  drops_first_space = rules.normalizer.adds_space();
  model = std::make_unique<BpeModel>(source, vocabulary, std::move(rules));
  finish(source, all_added(source, vocabulary));
}

void Tokenizer::Parts::build_sentencepiece(TokenizerSource source) {
  auto pieces = std::make_unique<SentencePieceModel>(source);
  pieces->complete(source);
  vocabulary = read_vocabulary(source);
  before = ids_if(source.add_bos.value_or(true), source.bos_id);
  after = ids_if(source.add_eos.value_or(false), source.eos_id);
  drops_first_space = pieces->adds_space();
  std::vector<AddedToken> tokens = all_added(source, vocabulary);
  // What the model finds by itself is left to it: it looks at the text around, too.
  std::erase_if(
      tokens, [&](const AddedToken& token) { return !token.special && pieces->finds(token.text); });
  model = std::move(pieces);
  finish(source, std::move(tokens));
}

void Tokenizer::Parts::finish(const TokenizerSource& source, std::vector<AddedToken> tokens) {
  bos = source.bos_id;
  eos = source.eos_id;
  for (const auto& id : {bos, eos}) {
    if (id && *id >= vocabulary.size()) {
      throw Error("special token id " + std::to_string(*id) + " is outside the vocabulary of " +
                  std::to_string(vocabulary.size()));
    }
  }
  for (const auto& ids : {before, after}) {
    for (const TokenId id : ids) {
      if (id >= vocabulary.size()) {
        throw Error("post_processor: token id " + std::to_string(id) + " is not in the vocabulary");
      }
    }
  }
  if (eos) stops.push_back(*eos);
  for (const AddedToken& token : tokens) {
    if (token.special &&
        std::find(kStopNames.begin(), kStopNames.end(), token.text) != kStopNames.end()) {
      stops.push_back(token.id);
    }
  }
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  added.emplace(std::move(tokens));
}

void Tokenizer::Parts::encode_parts(std::string_view text, SpecialTokens special,
                                    std::span<const TextRange> untrusted,
                                    std::vector<TokenId>& ids) const {
  if (text.size() > kMaxTextBytes) throw Error("a text longer than 1 GiB cannot be encoded");
  bool at_text_start = true;
  for (const AddedTokens::Part& part : added->split(text, special, untrusted)) {
    if (part.token) {
      ids.push_back(*part.token);
    } else {
      model->encode(part.text, at_text_start, ids);
    }
    at_text_start = false;
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_source(const TokenizerSource& source) {
  auto parts = std::make_unique<Parts>();
  if (source.kind == TokenizerSource::Kind::bpe) {
    parts->build_bpe(source);
  } else {
    parts->build_sentencepiece(source);
  }
  return Tokenizer(std::move(parts));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = to_valid_utf8(text);
  std::vector<TokenId> ids;
  if (options.add_bos_eos) ids = parts_->before;
  parts_->encode_parts(text, options.special_tokens, {}, ids);
  if (options.add_bos_eos) ids.insert(ids.end(), parts_->after.begin(), parts_->after.end());
  return ids;
}

std::vector<TokenId> Tokenizer::encode(const Prompt& prompt) const {
  std::vector<TokenId> ids;
  parts_->encode_parts(prompt.text, SpecialTokens::recognised, prompt.untrusted, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, const DecodeOptions& options) const {
  StreamDecoder decoder(*this, options);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  return id < parts_->vocabulary.size() ? std::string_view(parts_->vocabulary[id].bytes)
                                        : std::string_view();
}

bool Tokenizer::is_special(TokenId id) const {
  return id < parts_->vocabulary.size() && parts_->vocabulary[id].special;
}

std::optional<TokenId> Tokenizer::id_of(std::string_view special_text) const {
  return parts_->added->find(special_text);
}

size_t Tokenizer::vocab_size() const { return parts_->vocabulary.size(); }
std::optional<TokenId> Tokenizer::bos_id() const { return parts_->bos; }
std::optional<TokenId> Tokenizer::eos_id() const { return parts_->eos; }
bool Tokenizer::adds_bos() const { return !parts_->before.empty(); }
std::span<const TokenId> Tokenizer::stop_ids() const { return parts_->stops; }

std::string StreamDecoder::push(TokenId id) {
  std::string text;
  if (options_.skip_special && tokenizer_->is_special(id)) return text;
  std::string_view bytes = tokenizer_->token_bytes(id);
  if (!started_ && !bytes.empty()) {
    started_ = true;
    const bool drop = options_.at_start && tokenizer_->parts_->drops_first_space;
    if (drop && bytes.front() == ' ') bytes.remove_prefix(1);
  }
  assembler_.push(bytes, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  assembler_.finish(text);
  started_ = false;
  return text;
}

}  // namespace flexllm::tokenizer
