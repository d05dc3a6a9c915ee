// run_launch CASE [scalar|avx2|avx512_vnni]     or     run_launch --isas
//
// --isas lists the instruction sets of this processor. Otherwise it
// runs the launch in folder CASE on a twin: the buffers before it are desc.bin, model.bin,
// w00.bin .., kv00.bin ..; those after it are written beside them, as tests/reference/launch.py
// does: result.bin, scratch.bin, kv00.after.bin ... Prints the launch status.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/contract/launch.h"
#include "kernels/tests/random_case.h"

namespace {

namespace fs = std::filesystem;
using flexllm::kernels::CardBuffer;
using flexllm::kernels::CardWord;
using flexllm::kernels::Case;
namespace kernels = flexllm::kernels;

CardBuffer read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  CardBuffer buffer(fs::file_size(path) / sizeof(CardWord));
  file.read(reinterpret_cast<char*>(buffer.data()),
            static_cast<std::streamsize>(buffer.size() * sizeof(CardWord)));
  return buffer;
}

void write(const fs::path& path, const CardBuffer& buffer, size_t words) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(buffer.data()),
             static_cast<std::streamsize>(words * sizeof(CardWord)));
}

std::string numbered(const char* prefix, size_t i, const char* suffix) {
  return prefix + std::string(i < 10 ? "0" : "") + std::to_string(i) + suffix;
}

std::vector<CardBuffer> read_numbered(const fs::path& folder, const char* prefix) {
  std::vector<CardBuffer> buffers;
  while (fs::exists(folder / numbered(prefix, buffers.size(), ".bin"))) {
    buffers.push_back(read(folder / numbered(prefix, buffers.size(), ".bin")));
  }
  return buffers;
}

std::vector<kernels::twin::Isa> usable_isas() {
  using kernels::twin::Isa;
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512_vnni}) {
    if (isa <= kernels::twin::best_isa()) isas.push_back(isa);
  }
  return isas;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: run_launch CASE [scalar|avx2|avx512_vnni]\n");
    return 2;
  }
  const auto isas = usable_isas();
  if (std::string(argv[1]) == "--isas") {
    for (const auto isa : isas) std::puts(to_string(isa));
    return 0;
  }
  const auto isa =
      argc < 3 ? isas.end() - 1 : std::find_if(isas.begin(), isas.end(), [&](auto candidate) {
        return std::string(argv[2]) == to_string(candidate);
      });
  if (isa == isas.end()) {
    std::fprintf(stderr, "run_launch: this processor has no %s\n", argv[2]);
    return 2;
  }
  const fs::path folder = argv[1];
  Case launch;
  launch.desc = read(folder / "desc.bin");
  launch.model = read(folder / "model.bin");
  launch.weights = read_numbered(folder, "w");
  launch.kv = read_numbered(folder, "kv");
  const uint32_t* header = kernels::fields_at(launch.desc, 0);
  const uint32_t vocab = kernels::fields_at(launch.model, 0)[kernels::model_field::vocab];
  const size_t logits_end =
      header[kernels::launch_field::logits] +
      size_t{header[kernels::launch_field::logits_slots]} * kernels::logits_words(vocab);
  launch.result.resize(header[kernels::launch_field::result_words]);
  launch.scratch.resize(logits_end);
  const uint32_t status = kernels::twin::run(launch.buffers(), kernels::kCombinedMaxima, *isa);
  write(folder / "result.bin", launch.result, launch.result.size());
  write(folder / "scratch.bin", launch.scratch, logits_end);
  for (size_t i = 0; i < launch.kv.size(); ++i) {
    write(folder / numbered("kv", i, ".after.bin"), launch.kv[i], launch.kv[i].size());
  }
  std::printf("%u\n", status);
  return 0;
}
