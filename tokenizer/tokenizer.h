// Text to token ids and back, as the model's own tokenizer does it: byte-level BPE, BPE with byte
// fallback, or SentencePiece, whichever the checkpoint brings.
//
// A Tokenizer is built once from a formats::TokenizerSource and owns copies of everything it needs.
// It is immutable: any thread may call any member at any time. Texts are UTF-8; where a text is not
// valid UTF-8, every maximal ill-formed part of it counts as one U+FFFD, in both directions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_source.h"
#include "tokenizer/prompt.h"

namespace flexllm::tokenizer {

using TokenId = uint32_t;

// The checkpoint's tokenizer is malformed or uses something that we do not support (thrown at
// start-up); or a pattern that came with the model ran past its match limit on a text (thrown by
// `encode`; the built-in patterns cannot). The message says what and where.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// What the text of a control token such as "<|im_end|>" means where it stands in the input.
enum class SpecialTokens {
  as_text,     // only characters: nobody can end a turn by writing so
  recognised,  // the token itself
};

struct EncodeOptions {
  SpecialTokens special_tokens = SpecialTokens::as_text;
  bool add_bos_eos =
      true;  // BOS before and EOS after the text, if the model's configuration adds it
};

struct DecodeOptions {
  bool skip_special = true;  // control tokens leave no text; otherwise their name, "<|im_end|>"
  // The ids begin a text. SentencePiece models put a space before the first word of a text, which
  // is dropped again here; ids that continue a text keep it.
  bool at_start = true;
};

class Tokenizer {
 public:
  // Throws Error.
  static Tokenizer from_source(const formats::TokenizerSource& source);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // O(n log n) in the length of the text. Tokens that the model added to its vocabulary without
  // making them control tokens are recognised in any case.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // A rendered chat template: control tokens are recognised where the template wrote them and are
  // text where a caller's text carries them. Nothing is added: the template has the last word.
  std::vector<TokenId> encode(const Prompt& prompt) const;

  // Ids outside the vocabulary leave no text.
  std::string decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const;

  // The raw bytes that a token stands for, possibly a part of a UTF-8 character; of a control token
  // its name. Empty for ids outside the vocabulary. Valid as long as the Tokenizer.
  std::string_view token_bytes(TokenId id) const;

  // Control tokens, the unknown token and tokens that the model declares special.
  bool is_special(TokenId id) const;

  // The special or added token with this text.
  std::optional<TokenId> id_of(std::string_view special_text) const;

  size_t vocab_size() const;
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  bool adds_bos() const;

  // Ids that end a turn or a text, ascending: EOS and the control tokens that are known to end a
  // turn ("<|im_end|>", "<|eot_id|>", ...). GenerationDefaults::eos_token_ids may name more.
  std::span<const TokenId> stop_ids() const;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace flexllm::tokenizer
