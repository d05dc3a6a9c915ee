// Measuring a model on a text: which windows of it are read and which tokens predicted, and what
// the log-probabilities amount to. Used by one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cli/option_table.h"
#include "formats/checkpoint.h"
#include "formats/packed_model.h"
#include "quantizer/float_model/log_probabilities.h"

namespace flexllm::cli {

struct TextOptions {
  std::filesystem::path text;
  uint32_t tokens = 0;
  std::string protocol = "wikitext2";
  uint32_t window = 0;  // 0: the protocol's own
};

void add_text_options(OptionTable& table, TextOptions& options);

// A model on disk: one of the two is there.
struct ModelFile {
  std::string name;
  std::unique_ptr<formats::Checkpoint> checkpoint;
  std::unique_ptr<formats::PackedModel> packed;

  const formats::ModelConfig& config() const;
  const formats::TokenizerSource& tokenizer() const;
};

// `path` may be "default". Throws Failure (kModel).
ModelFile open_model(const std::filesystem::path& path);

// The protocol's windows of the text; at least one prediction. Throws Failure (kUsage) that names
// the option.
//
//   wikitext2  2,048 tokens without overlap, the last window perhaps shorter; every token but the
//              first of a window is predicted (the protocol of the GPTQ papers). A
//              beginning-of-text token stands at the start of the text only, if the model's
//              tokenizer adds one.
//   llama.cpp  what `llama-perplexity` does: whole windows of 512 tokens; in each, the tokens
//   behind
//              its first half are predicted: windows of n tokens predict those at n/2 + 1 .. n - 1.
//              A tokenizer that adds a beginning-of-text token puts it in place of every window's
//              first. A newline at the end of the file is not read.
std::vector<quantizer::ScoredWindow> windows_of(const ModelFile& model, const TextOptions& options);

// Tokens of a window, as options and protocol say. Throws Failure (kUsage) for an unknown protocol.
uint32_t window_tokens(const TextOptions& options);

// exp of the mean of -log p, and the standard error of the mean carried through exp.
struct Perplexity {
  double value = 0;
  double error = 0;
};
Perplexity perplexity_of(std::span<const double> log_probabilities);

// How much larger the first perplexity is than the second on the same tokens: their ratio. The
// error is that of the paired differences, far smaller than what the two errors suggest.
Perplexity ratio_of(std::span<const double> log_probabilities, std::span<const double> reference);

// Whether losses can be written there, as far as can be known before: so that a long run does not
// end in vain. Throws Failure (kUsage).
void check_losses_path(const std::filesystem::path& path);

// The negative log-probability of every predicted token in order, one binary32 (little-endian)
// each and nothing else. Written aside and renamed. Throws Failure (kFailed), and leaves nothing.
void save_losses(const std::filesystem::path& path, std::span<const double> log_probabilities);

}  // namespace flexllm::cli
