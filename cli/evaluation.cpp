#include "cli/evaluation.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <system_error>

#include "cli/exit_code.h"
#include "cli/model.h"
#include "tokenizer/tokenizer.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

struct Protocol {
  const char* name;
  uint32_t window;
};
constexpr Protocol kWikitext2{"wikitext2", 2048};
constexpr Protocol kLlamaCpp{"llama.cpp", 512};

const Protocol& protocol_of(const TextOptions& options) {
  for (const Protocol* protocol : {&kWikitext2, &kLlamaCpp}) {
    if (options.protocol == protocol->name) return *protocol;
  }
  throw Failure(kUsage, fmt::format("--protocol: there is no '{}' ({}, {})", options.protocol,
                                    kWikitext2.name, kLlamaCpp.name));
}

std::string read_text(const std::filesystem::path& path) {
  if (path.empty()) throw Failure(kUsage, "--text is required");
  std::ifstream file(path, std::ios::binary);
  const bool readable = file && !std::filesystem::is_directory(path);
  if (!readable) throw Failure(kUsage, "--text: cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

double mean_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Of -mean(values), through exp.
Perplexity through_exp(std::span<const double> values) {
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const auto n = static_cast<double>(values.size());
  const double perplexity = std::exp(-mean);
  return {perplexity, n > 1 ? perplexity * std::sqrt(squares / (n - 1) / n) : 0};
}

}  // namespace

void add_text_options(OptionTable& table, TextOptions& options) {
  table.group("Text");
  table.add("text", options.text, "File to predict");
  table.add("tokens", options.tokens, 0, UINT32_MAX, "Use the first so many; 0: all");
  table.add("protocol", options.protocol,
            "Which tokens are predicted from which: 'wikitext2' or 'llama.cpp'");
  table.add("window", options.window, 0, UINT32_MAX,
            "Tokens of a window; 0: the protocol's own, 2048 or 512");
}

const formats::ModelConfig& ModelFile::config() const {
  return checkpoint ? checkpoint->config() : packed->config();
}

const formats::TokenizerSource& ModelFile::tokenizer() const {
  return checkpoint ? checkpoint->tokenizer() : packed->info().tokenizer;
}

ModelFile open_model(const std::filesystem::path& path) {
  const std::filesystem::path file = path == "default" ? default_model() : path;
  try {
    ModelFile model;
    if (formats::PackedModel::is_packed(file)) {
      model.packed = std::make_unique<formats::PackedModel>(file);
      model.name = model.packed->config().name;
    } else {
      model.checkpoint = formats::open_checkpoint(file);
      model.name = model.checkpoint->config().name;
    }
    return model;
  } catch (const std::exception& error) {
    throw Failure(kModel, error.what());
  }
}

uint32_t window_tokens(const TextOptions& options) {
  const Protocol& protocol = protocol_of(options);
  return options.window != 0 ? options.window : protocol.window;
}

std::vector<quantizer::ScoredWindow> windows_of(const ModelFile& model,
                                                const TextOptions& options) {
  const Protocol& protocol = protocol_of(options);
  std::string text = read_text(options.text);
  const uint32_t window = window_tokens(options);
  const uint32_t context = model.config().context_length;
  // Shorter windows of llama.cpp predict nothing.
  const uint32_t shortest = &protocol == &kLlamaCpp ? 4 : 2;
  if (window < shortest || window > context) {
    throw Failure(kUsage, fmt::format("--window must lie in {}..{}", shortest, context));
  }
  if (&protocol == &kLlamaCpp && text.ends_with('\n')) text.pop_back();
  std::vector<uint32_t> tokens;
  std::optional<uint32_t> begin;
  try {
    const auto tokenizer = tokenizer::Tokenizer::from_source(model.tokenizer());
    tokens = tokenizer.encode(text);
    if (tokenizer.adds_bos()) begin = tokenizer.bos_id();
  } catch (const tokenizer::Error& error) {
    throw Failure(kModel, error.what());
  }
  if (options.tokens != 0 && tokens.size() > options.tokens) tokens.resize(options.tokens);

  std::vector<quantizer::ScoredWindow> windows;
  for (size_t at = 0; at < tokens.size(); at += window) {
    const size_t length = std::min<size_t>(window, tokens.size() - at);
    const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(at);
    quantizer::ScoredWindow cut{{first, first + static_cast<std::ptrdiff_t>(length)}, 0};
    if (&protocol == &kLlamaCpp) {
      if (length < window) break;
      cut.first_row = window / 2;
      if (begin) cut.tokens[0] = *begin;
    }
    if (cut.predictions() > 0) windows.push_back(std::move(cut));
  }
  if (windows.empty()) {
    const size_t least = &protocol == &kLlamaCpp ? window : 2;
    throw Failure(kUsage,
                  fmt::format("--text: {} tokens; this protocol needs {}", tokens.size(), least));
  }
  return windows;
}

Perplexity perplexity_of(std::span<const double> log_probabilities) {
  return through_exp(log_probabilities);
}

Perplexity ratio_of(std::span<const double> log_probabilities, std::span<const double> reference) {
  std::vector<double> differences(log_probabilities.size());
  std::ranges::transform(log_probabilities, reference, differences.begin(), std::minus<>());
  return through_exp(differences);
}

void check_losses_path(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw Failure(kUsage, fmt::format("--losses: there is no folder {}", folder.string()));
  }
  if (fs::is_directory(path, error)) {
    throw Failure(kUsage, fmt::format("--losses: {} is a folder", path.string()));
  }
}

void save_losses(const fs::path& path, std::span<const double> log_probabilities) {
  static_assert(std::endian::native == std::endian::little);
  std::vector<float> losses(log_probabilities.size());
  std::ranges::transform(log_probabilities, losses.begin(),
                         [](double value) { return static_cast<float>(-value); });
  const fs::path aside = fmt::format("{}.{}", path.string(), ::getpid());
  errno = 0;
  std::ofstream file(aside, std::ios::binary);
  file.write(reinterpret_cast<const char*>(losses.data()),
             static_cast<std::streamsize>(losses.size() * sizeof(float)));
  file.close();
  std::error_code error;
  if (!file) {
    error = std::error_code(errno, std::generic_category());
  } else {
    fs::rename(aside, path, error);
  }
  if (!file || error) {
    std::error_code ignored;
    fs::remove(aside, ignored);
    throw Failure(kFailed, fmt::format("--losses: cannot write {}: {}", path.string(),
                                       error ? error.message() : "the disk took only a part"));
  }
}

}  // namespace flexllm::cli
