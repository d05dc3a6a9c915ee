// R1 and R2 learned for a scheme, on the matrices and some text of the model itself.
//
// What is made small is the noise that rounding adds to the outputs of each matrix, as a share of
// their energy, summed over the matrices. Rounding with step s adds errors of variance s^2 / 12 to
// each element, and rotations leave all else alone: the energies of a matrix, of its inputs and of
// its outputs. Steps are what they change. So the loss is, for every matrix that reads rows turned
// by R1 (q, k and v; gate and up) or R2 (o),
//
//     E over rows x of (max x - min x)^2 / L^2      * |W|^2     / (12 E |W x|^2)      activations
//   + sum over rows w, groups g of (max |w_g| / M)^2 * E |x_g|^2 / (12 E |W x|^2)      weights
//
// with L = 15 or 255 and M = 7 or 127, and the energy of inputs spread evenly over them. Its
// gradient passes through the steps, which only the extreme elements set, and straight through the
// rounding. This looks at each matrix alone; SpinQuant (arXiv 2405.16406) learns the same rotations
// for the whole model's loss, at the price of its backward pass. The outputs of o and down, which
// R1 turns too, and lm_head are left out of the loss.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "quantizer/packing/partial_folder.h"
#include "quantizer/rotation/rotations.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

struct LearnOptions {
  uint32_t steps = 150;
  double angle = 0.03;  // radians of the first step; it falls to 0 in a straight line
  double momentum = 0.9;
  uint32_t rows = 256;         // of activations, of a matrix; spread over the text
  uint32_t weight_rows = 128;  // of weights, of a matrix
  uint64_t seed = 0;           // of the random rotations that it starts from
  // Where R1, from time to time, and each R2 are kept, so that a run that was stopped goes on there
  // after it has looked at the text again; opened with a key that names the checkpoint and holds
  // learning_key(). None: nothing is kept.
  const PartialFolder* partial = nullptr;
  // Called on the calling thread: share of the work done, 0..1.
  std::function<void(double)> progress;
};

struct LearnedRotations {
  Rotations rotations;
  // Of R1, then of the R2 of each layer; of those only that the scheme has.
  std::vector<double> loss_before;
  std::vector<double> loss_after;
};

// All that the result depends on, beside the checkpoint.
std::string learning_key(const Scheme& scheme, std::span<const std::vector<uint32_t>> windows,
                         const LearnOptions& options);

// Starts from random rotations, those that the scheme has. `windows` of tokens; memory beside one
// layer: the samples, and windows' residuals. The same for any number of workers. Throws
// std::invalid_argument for a scheme without R1 and R2 or windows that do not fit the model, and
// what reading the checkpoint or keeping a rotation throws.
LearnedRotations learn_rotations(const formats::Checkpoint& checkpoint, const Scheme& scheme,
                                 std::span<const std::vector<uint32_t>> windows,
                                 const LearnOptions& options, Workers& workers);

// Rows whose steps a rotation sets, and what a squared step of one of them counts.
struct StepSamples {
  Matrix rows;             // [rows][width], width a multiple of the rotation's size
  size_t group = 0;        // elements that share a step; the last group of a row may be shorter
  bool symmetric = false;  // step from the largest magnitude, else from the range
  double weight = 1;
};

// The sum of weight * (range or largest magnitude)^2 over groups of rows turned by `rotation`
// [n][n], for all samples; adds its derivative to `gradient` [n][n].
double step_loss(std::span<const StepSamples> samples, const Matrix& rotation, Matrix& gradient,
                 Workers& workers);

}  // namespace flexllm::quantizer
