// What a checkpoint says about its tokenizer, independent of the kind of file: the `tokenizer/`
// room builds from this and never opens a file. A plain value, owned by its Checkpoint; immutable,
// so any thread may read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace flexllm::formats {

// Numbered as in GGUF (tokenizer.ggml.token_type) and in SentencePiece.
enum class TokenType : uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

// A token that is found in the text before the model's own splitting, with Hugging Face's flags. A
// GGUF file states only types: its control and user-defined tokens are listed here with
// `special` = control and the other flags false.
struct AddedToken {
  uint32_t id = 0;
  std::string text;
  bool special = false;
  bool normalized = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
};

struct NamedTemplate {
  std::string name;  // "default", "tool_use", ...
  std::string text;  // Jinja
};

struct TokenizerSource {
  enum class Kind { bpe, sentencepiece };
  Kind kind = Kind::bpe;

  // Vocabulary by id; `scores` and `types` are empty or as long as `tokens`. Texts are as stored:
  // byte-level BPE texts are in the printable alphabet of GPT-2 ("Ġthe"), SentencePiece pieces have
  // U+2581 for a space. Empty when `sentencepiece_model` carries the vocabulary. An id that no
  // token has (a gap in tokenizer.json) has an empty text and type `unused`.
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<TokenType> types;

  // BPE: merge rules by rank, "left right" with one space between them.
  std::vector<std::string> merges;
  bool byte_level = false;     // bytes map to GPT-2's printable alphabet
  bool byte_fallback = false;  // unknown characters become <0xNN> tokens
  bool ignore_merges = false;  // a pre-token that is a token is not merged further

  // How text is split before BPE. From GGUF a name (tokenizer.ggml.pre, "smollm", "llama-bpe",
  // "qwen2", ...); from a Hugging Face folder the whole text of tokenizer.json, whose
  // `normalizer` and `pre_tokenizer` say it. One of the two is empty.
  std::string pre_tokenizer;
  std::string tokenizer_json;

  // SentencePiece: the bytes of tokenizer.model (Hugging Face), or empty (GGUF: tokens and scores).
  std::string sentencepiece_model;

  std::vector<AddedToken> added_tokens;  // by id

  std::optional<uint32_t> bos_id;
  std::optional<uint32_t> eos_id;
  std::optional<uint32_t> unk_id;
  std::optional<uint32_t> pad_id;
  std::optional<bool> add_bos;           // absent: the file does not say
  std::optional<bool> add_eos;           // likewise
  std::optional<bool> add_space_prefix;  // likewise

  // The template named "default" (or the only one) stands first; empty when there is none.
  std::vector<NamedTemplate> chat_templates;
};

}  // namespace flexllm::formats
