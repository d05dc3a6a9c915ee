#include "kernels/twin/twin.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "kernels/twin/float_mode.h"
#include "kernels/twin/isa/ops.h"
#include "kernels/twin/launch_view.h"
#include "kernels/twin/layers.h"
#include "kernels/twin/outputs.h"

namespace flexllm::kernels::twin {
namespace {

Isa detected_isa() {
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512_vnni;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return Isa::avx2;
  return Isa::scalar;
}

Isa allowed_isa() {
  const char* limit = std::getenv("FLEXLLM_TWIN_ISA");
  if (limit == nullptr) return detected_isa();
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512_vnni}) {
    if (std::string_view(limit) == to_string(isa)) return std::min(isa, detected_isa());
  }
  return detected_isa();
}

const Ops& ops_of(Isa isa) {
  switch (isa) {
    case Isa::avx512_vnni:
      return avx512_vnni::kOps;
    case Isa::avx2:
      return avx2::kOps;
    case Isa::scalar:
      break;
  }
  return scalar::kOps;
}

void complete(const Buffers& buffers, uint32_t id, uint32_t status, uint32_t rows) {
  if (buffers.result.bytes < kWordBytes) return;
  auto* record = reinterpret_cast<uint32_t*>(buffers.result.data);
  std::fill_n(record, completion_field::fields, 0u);
  record[completion_field::magic] = kResultMagic;
  record[completion_field::version] = kContractVersion;
  record[completion_field::id] = id;
  record[completion_field::status] = status;
  record[completion_field::rows] = rows;
}

}  // namespace

Isa best_isa() {
  static const Isa isa = allowed_isa();
  return isa;
}

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::avx512_vnni:
      return "avx512_vnni";
    case Isa::avx2:
      return "avx2";
    case Isa::scalar:
      break;
  }
  return "scalar";
}

uint32_t run(const Buffers& buffers, const Maxima& maxima, Isa isa) {
  const FlushDenormals float_mode;
  LaunchView launch;
  const uint32_t status = read_launch(buffers, maxima, launch);
  if (status != launch_status::ok) {
    complete(buffers, launch.id, status, 0);
    return status;
  }
  const Ops& ops = ops_of(isa);
  const auto rows = static_cast<uint32_t>(launch.rows.size());
  Rows x(rows, launch.model.hidden);
  for (uint32_t i = 0; i < rows; ++i) {
    std::copy_n(launch.rows[i].input, launch.model.hidden, x[i]);
  }
  run_layers(launch, ops, x);
  write_outputs(launch, ops, x);
  complete(buffers, launch.id, launch_status::ok, rows);
  return launch_status::ok;
}

}  // namespace flexllm::kernels::twin
