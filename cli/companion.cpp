#include "cli/companion.h"

namespace flexllm::cli {

namespace fs = std::filesystem;

fs::path companion(const fs::path& file) {
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  for (const auto& base : {folder, folder.parent_path()}) {
    if (fs::exists(base / file)) return base / file;
  }
  return {};
}

}  // namespace flexllm::cli
