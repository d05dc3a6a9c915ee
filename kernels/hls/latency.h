// Latencies in cycles at 300 MHz on the U280, for HLS_DEPTH and HLS_LATENCY (pragmas.h), and the
// constants of the C simulation's virtual time (docs/cycle-model.md). C++14. "Assumed" figures are
// to be replaced by those of a synthesis report.
#pragma once

#include <cstdint>

namespace flexllm {
namespace kernels {
namespace latency {

// Floats of 32 bits.
constexpr uint32_t add = 6;         // assumed: full-DSP adder; also a subtraction
constexpr uint32_t multiply = 4;    // assumed: max-DSP multiplier
constexpr uint32_t divide = 16;     // assumed: divider without DSP, II 1
constexpr uint32_t sqrt = 16;       // assumed: square root without DSP, II 1
constexpr uint32_t compare = 2;     // assumed: comparison, maximum
constexpr uint32_t from_int = 5;    // assumed: integer of up to 32 bits to float
constexpr uint32_t to_int = 5;      // assumed: float to integer, rounding to nearest even included
constexpr uint32_t fold = 6 * add;  // vsum's 64 partial sums to one: six rounds of additions
constexpr uint32_t maximum = 6 * compare;  // 64 partial maxima to one: six rounds of comparisons
// exp of docs/numerics.md, section 2, along its longest path: the range check; n; r; the polynomial
// of r; its last three operations; times a power of two.
constexpr uint32_t exp = compare + (multiply + 2 * add) + (multiply + 2 * add) +
                         4 * (multiply + add) + (multiply + 2 * add) + multiply;

// Integers.
constexpr uint32_t dsp = 4;  // assumed: a DSP with all its registers, product and accumulation
constexpr uint32_t chip_read = 2;  // assumed: BRAM or URAM with an output register

// Card memory: from a request to its first word. What Vitis HLS schedules an m_axi access with in
// the Vitis kernel flow (UG1399, -m_axi_latency=64); assumed to hold for HBM at 300 MHz (213 ns).
constexpr uint32_t memory_read = 64;
// From a word sent to the response that it is written. Assumed equal.
constexpr uint32_t memory_write = 64;

// Dataflow regions: from the start of the region to the first cycle of its tasks, and from the last
// cycle of its last task to the end of the region. Assumed: two levels of handshakes each.
constexpr uint32_t region_start = 6;
constexpr uint32_t region_end = 6;

// From the write of an element to the first cycle in which it can be read, and from a read to the
// first cycle in which its place can be written again: a FIFO with registered flags. A depth of two
// therefore sustains an element per cycle, a depth of one every second cycle.
constexpr uint32_t stream = 1;

}  // namespace latency
}  // namespace kernels
}  // namespace flexllm
