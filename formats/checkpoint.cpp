#include "formats/checkpoint.h"

#include <fstream>

#include "formats/stored_checkpoint.h"

namespace flexllm::formats {

std::vector<float> Checkpoint::read_f32(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) {
    throw Error("the checkpoint has no tensor '" + std::string(name) + "'");
  }
  uint64_t elements = 1;
  for (const uint64_t dimension : info->shape) elements *= dimension;
  std::vector<float> values(elements);
  read_rows_f32(name, 0, info->shape.front(), values);
  return values;
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw Error(path, "cannot open", "there is no such file or folder");
  }
  if (std::filesystem::is_directory(status)) return open_hugging_face_checkpoint(path);
  if (!std::filesystem::is_regular_file(status)) {
    throw Error(path, "cannot open", "expected a GGUF file or a Hugging Face folder");
  }
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  if (std::string_view(magic, sizeof magic) == "GGUF") return open_gguf_checkpoint(path);
  if (path.extension() == ".safetensors") {
    throw Error(path, "byte 0",
                "a safetensors file alone is not a checkpoint; give the folder that holds it "
                "beside config.json");
  }
  throw Error(path, "byte 0", "expected the magic 'GGUF': the file is not GGUF, and not a folder");
}

}  // namespace flexllm::formats
