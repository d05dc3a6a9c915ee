// Files that came with the program.
#pragma once

#include <filesystem>

namespace flexllm::cli {

// `file` beside the program (build tree) or one folder up (installation); empty if it is not there.
std::filesystem::path companion(const std::filesystem::path& file);

}  // namespace flexllm::cli
