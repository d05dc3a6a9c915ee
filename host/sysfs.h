// Reading what the driver shows in /sys. Private to host/. With the calls of libc that the emulated
// card answers, which is why std::filesystem does not do.
#pragma once

#include <string>
#include <vector>

namespace flexllm::host {

// The names in a folder, without those that begin with a dot; none if it cannot be read.
std::vector<std::string> names_in(const std::string& folder);

// The first line of a file; empty if it cannot be read.
std::string first_line(const std::string& file);

}  // namespace flexllm::host
