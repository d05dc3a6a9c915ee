// A small random model with every feature that a packed model can have: both weight and activation
// widths, group multipliers, biases, q/k norms, R4. It says nothing sensible, but every card must
// compute the same bits from it. For `flexllm doctor --selftest` and the tests of this room.
#pragma once

#include <cstdint>
#include <filesystem>

namespace flexllm::host {

// Writes it as a packed model for an accelerator with `streams` weight streams. The file is a pure
// function of the arguments. Throws formats::Error when it cannot be written.
void write_tiny_model(const std::filesystem::path& path, uint32_t streams, uint64_t seed = 1);

}  // namespace flexllm::host
