// What the cycle and resource model is told: a model's shape, an accelerator and its device. Filled
// by whoever reads the configuration (cli/plan_config.h); plain values, no thread rules.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/contract/layout.h"

namespace flexllm::kernels::model {

// A design that cannot be: the message names the field and the reason.
class Refused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The matrices as the kernels see them: q, k and v are one, gate and up are one.
enum class Matrix { qkv, output, gate_up, down, lm_head };
inline constexpr Matrix kLayerMatrices[] = {Matrix::qkv, Matrix::output, Matrix::gate_up,
                                            Matrix::down};

// How many layers give a matrix that precision. Which ones they are changes no time.
struct LayerShare {
  Precision precision;
  uint32_t layers;
};

// Of the matrices of all layers, by Matrix; the layers of each add up to the model's.
using LayerPrecisions = std::array<std::vector<LayerShare>, std::size(kLayerMatrices)>;

// The same in every layer and matrix.
LayerPrecisions uniform_precisions(uint32_t layers, const Precision& precision);

// Dimensions of a model and the precision of its matrices.
struct ModelShape {
  std::string name;
  uint32_t layers;
  uint32_t hidden;
  uint32_t ffn;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t vocab;
  LayerPrecisions linears;
  Precision lm_head;
  uint32_t hadamard_block;  // R4 block before down_proj; 0: none

  uint32_t attention() const { return heads * head_dim; }
  uint32_t qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
  uint32_t inputs(Matrix matrix) const;
  uint32_t outputs(Matrix matrix) const;
  uint32_t tiles(Matrix matrix) const;  // of 32 outputs
  const std::vector<LayerShare>& shares(Matrix matrix) const {
    return linears.at(static_cast<size_t>(matrix));
  }
  KvLayout kv() const { return KvLayout{layers, kv_heads, head_dim}; }
};

// Largest sizes that a kernel is built for.
struct Maxima {
  uint32_t hidden;
  uint32_t ffn;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t batch;
  uint32_t prefill_rows;
  uint32_t context;
  uint32_t vocab;
};

// One AXI master of a kernel.
struct Port {
  std::string name;
  uint32_t bits;
  std::vector<uint32_t> banks;  // of its arguments; indices into Device::banks
};

enum class Stage { prefill, decode };

struct Kernel {
  Stage stage;
  std::string name;
  double clock_mhz;
  bool spatial;      // composition: arrays of their own for q k v, and for o behind attention
  uint32_t tp;       // rows multiplied at once
  uint32_t bp;       // arrays
  uint32_t wp;       // weights of an array a cycle
  uint32_t heads;    // query heads side by side, of each KV port
  uint32_t kv;       // elements of K or V side by side, of each KV port
  uint32_t outputs;  // outputs dequantised a cycle
  uint32_t panel;    // rows that share a pass of the weights, at most those of a launch
  std::vector<Port> ports;
  std::vector<uint32_t> weight_banks;  // bank of each arena
  std::vector<uint32_t> kv_banks;
  std::string slr = {};  // die that all of it is placed on; empty: any

  uint32_t weight_ports() const { return count("w"); }
  uint32_t kv_ports() const { return count("kv"); }
  // Port `number` of that name, which may have no number behind it. Throws Refused.
  const Port& port(const std::string& family, uint32_t number = 0) const;

 private:
  uint32_t count(const std::string& family) const;
};

struct Bank {
  std::string tag;
  uint64_t bytes;
  double gb_per_s;       // sustained, of sequential bursts
  std::string slr = {};  // die at which its controller sits; empty: all dies reach it alike
};

// Resources of the device's fabric.
struct Resources {
  double dsp = 0;
  double bram18 = 0;
  double uram = 0;
  double lut = 0;

  Resources& operator+=(const Resources& other) {
    dsp += other.dsp;
    bram18 += other.bram18;
    uram += other.uram;
    lut += other.lut;
    return *this;
  }
  Resources operator*(double n) const { return {dsp * n, bram18 * n, uram * n, lut * n}; }
};

// A part of the device that Vivado places modules in, with what the shell leaves of it.
struct Slot {
  std::string name;
  std::string slr;  // its die
  Resources usable;
};

struct Device {
  std::string name;
  std::vector<Bank> banks;
  uint32_t axi_ports;
  std::vector<Slot> slots;

  Resources usable() const;  // of all slots
};

struct Accelerator {
  std::string name;
  Device device;
  Maxima maxima;
  std::vector<Kernel> kernels;

  const Kernel* kernel(Stage stage) const;  // null: it has none
};

// Bytes that a port of `kernel` moves per cycle: its width, or what its bank sustains.
double port_bytes_per_cycle(const Device& device, const Kernel& kernel, const Port& port);

}  // namespace flexllm::kernels::model
