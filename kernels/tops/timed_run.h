// A launch of a kernel in C simulation with the card's time (docs/cycle-model.md).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/hls/simulation.h"
#include "kernels/twin/twin.h"

namespace flexllm::kernels::csim {

// Most bytes per cycle that a port moves each way: `bits` wide, at a memory channel that sustains
// `gb_per_s`.
inline double port_rate(uint32_t bits, double gb_per_s, double clock_mhz) {
  return std::min(bits / 8.0, gb_per_s * 1000.0 / clock_mhz);
}

// The memory ports of a kernel, as its configuration names them. Arena i is behind port i modulo
// the number of ports.
struct CardPorts {
  uint32_t weight_ports = 1;
  uint32_t kv_ports = 1;
  double io = 64;  // bytes per cycle: descriptor, model, result
  double scratch = 64;
  double weights = 64;  // of each port
  double kv = 64;       // likewise
};

// Puts the buffers behind their ports: "io", "scratch", "w[0]", ..., "kv[0]", ...
inline void add_ports(const twin::Buffers& buffers, const CardPorts& ports,
                      simulation::Timeline& timeline) {
  const auto port = [&](const std::string& name, double rate) {
    return timeline.add_port({.name = name, .read_bytes = rate, .write_bytes = rate});
  };
  const auto place = [&](size_t at, const twin::Span& span) {
    timeline.add_range(at, span.data, span.bytes);
  };
  const size_t io = port("io", ports.io);
  for (const twin::Span& span : {buffers.desc, buffers.model, buffers.result}) place(io, span);
  place(port("scratch", ports.scratch), buffers.scratch);
  const auto deal = [&](const std::string& name, uint32_t count, double rate,
                        std::span<const twin::Span> arenas) {
    size_t first = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const size_t at = port(name + "[" + std::to_string(i) + "]", rate);
      if (i == 0) first = at;
    }
    for (size_t i = 0; i < arenas.size(); ++i) place(first + i % count, arenas[i]);
  };
  deal("w", ports.weight_ports, ports.weights, buffers.weights);
  deal("kv", ports.kv_ports, ports.kv, buffers.kv);
}

struct TimedRun {
  uint32_t status = 0;  // launch_status
  simulation::Report report;
};

// Runs `kernel` (csim::run_prefill or run_decode) in concurrent mode.
inline TimedRun run_timed(uint32_t (*kernel)(const twin::Buffers&), const twin::Buffers& buffers,
                          const CardPorts& ports) {
  simulation::Timeline timeline;
  add_ports(buffers, ports, timeline);
  TimedRun run;
  {
    const simulation::Scope scope({.timeline = &timeline});
    run.status = kernel(buffers);
  }
  run.report = timeline.report();
  return run;
}

}  // namespace flexllm::kernels::csim
