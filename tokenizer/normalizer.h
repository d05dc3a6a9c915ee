// What some models do to a text before it is split: a prefix, replacements, Unicode composition.
// Immutable: any thread may apply it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace flexllm::tokenizer {

class Normalizer {
 public:
  // Leaves every text as it is.
  Normalizer() = default;

  // `normalizer` and `pre_tokenizer` of a tokenizer.json; of the latter only Metaspace without
  // splitting, which is a normalizer by another name. Throws Error for a type we do not know.
  static Normalizer from_json(const nlohmann::json& normalizer,
                              const nlohmann::json& pre_tokenizer);

  // Whether it does nothing.
  bool empty() const { return steps_.empty(); }

  // Whether it puts a space before a text, which decoding has to drop.
  bool adds_space() const;

  // `text` is valid UTF-8; `at_text_start` says that no token stands before it.
  std::string apply(std::string_view text, bool at_text_start) const;

 private:
  struct Prepend {
    std::string prefix;
    bool only_at_text_start;
    bool unless_there;  // not before a text that has the prefix already
  };
  struct Replace {
    std::string what;
    std::string with;
  };
  struct Compose {};  // Unicode NFC
  using Step = std::variant<Prepend, Replace, Compose>;

  void add_json(const nlohmann::json& json, int depth);

  std::vector<Step> steps_;
};

// Whether `pre_tokenizer` is the Metaspace that `Normalizer::from_json` takes over.
bool is_metaspace(const nlohmann::json& pre_tokenizer);

}  // namespace flexllm::tokenizer
