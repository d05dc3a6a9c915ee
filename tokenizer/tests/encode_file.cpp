// Encodes a text file with a checkpoint's tokenizer, for tests/parity.py: writes little-endian
// 32-bit ids to standard output and the time taken to standard error.
//
//   tokenizer_encode_file CHECKPOINT TEXT [lines]
//
// With `lines` each line, its newline included, is encoded on its own.
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>

#include "formats/checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace {

using flexllm::tokenizer::EncodeOptions;
using flexllm::tokenizer::TokenId;
using flexllm::tokenizer::Tokenizer;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const std::string& checkpoint, const std::string& path, bool by_lines) {
  const auto opened = flexllm::formats::open_checkpoint(checkpoint);
  const auto build_start = std::chrono::steady_clock::now();
  const Tokenizer tokenizer = Tokenizer::from_source(opened->tokenizer());
  const double build_seconds = seconds_since(build_start);

  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const EncodeOptions options{.add_bos_eos = false};
  std::vector<TokenId> ids;
  const auto start = std::chrono::steady_clock::now();
  if (by_lines) {
    for (size_t at = 0; at < text.size();) {
      const size_t newline = text.find('\n', at);
      const size_t end = newline == std::string::npos ? text.size() : newline + 1;
      const auto line = tokenizer.encode(std::string_view(text).substr(at, end - at), options);
      ids.insert(ids.end(), line.begin(), line.end());
      at = end;
    }
  } else {
    ids = tokenizer.encode(text, options);
  }
  const double seconds = seconds_since(start);
  std::fprintf(stderr, "built in %.1f ms; %zu bytes, %zu ids, %.1f MB/s\n", build_seconds * 1e3,
               text.size(), ids.size(), static_cast<double>(text.size()) / 1e6 / seconds);
  if (tokenizer.decode(ids) != text) std::fprintf(stderr, "decoding does not give the text\n");
  const size_t written = std::fwrite(ids.data(), sizeof(TokenId), ids.size(), stdout);
  return written == ids.size() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: %s CHECKPOINT TEXT [lines]\n", argv[0]);
    return 2;
  }
  try {
    return run(argv[1], argv[2], argc == 4 && std::string(argv[3]) == "lines");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
