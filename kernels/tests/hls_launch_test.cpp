// The C simulation of whole launches against the fast twin: every byte of result, logits and pages.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/hls/simulation.h"
#include "kernels/tests/compare.h"
#include "kernels/tests/test_shapes.h"

namespace flexllm::kernels {
namespace {

template <typename K>
void compare_random(uint32_t first_seed, uint32_t cases, uint32_t sequences, Kernel simulate) {
  for (uint32_t seed = first_seed; seed < first_seed + cases; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    compare_with_twin(
        random_case(seed, case_limits<K>(sequences), K::weight_streams, K::kv_streams),
        twin_maxima<K>(), simulate);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Launch, DecodeEqualsTwinInConcurrentMode) {
  compare_random<SmallDecode>(1, 60, 16, run_small_decode);
}

TEST(Launch, PrefillEqualsTwinInConcurrentMode) {
  compare_random<SmallPrefill>(1001, 60, 4, run_small_prefill);
}

TEST(Launch, PrefillOnOneBankOfArraysEqualsTwin) {
  compare_random<SmallPrefill>(4001, 30, 4, run_small_prefill_temporal);
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  compare_random<SmallPrefill>(4031, 60, 4, run_small_prefill_temporal);
}

TEST(Launch, DecodeEqualsTwinInSequentialMode) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  compare_random<SmallDecode>(2001, 120, 16, run_small_decode);
}

TEST(Launch, PrefillEqualsTwinInSequentialMode) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  compare_random<SmallPrefill>(3001, 120, 4, run_small_prefill);
}

// One thing wrong with a launch, and what both must say.
struct Mistake {
  const char* what;
  uint32_t status;
  void (*make)(Case&);
};

uint32_t* row_of(Case& c, uint32_t row) {
  return fields_at(c.desc, fields_at(c.desc, 0)[launch_field::row_table] + row);
}

constexpr Mistake kMistakes[] = {
    {"launch magic", launch_status::bad_magic, [](Case& c) { ++fields_at(c.desc, 0)[0]; }},
    {"model magic", launch_status::bad_magic, [](Case& c) { ++fields_at(c.model, 0)[0]; }},
    {"launch version", launch_status::bad_version, [](Case& c) { ++fields_at(c.desc, 0)[1]; }},
    {"model version", launch_status::bad_version, [](Case& c) { ++fields_at(c.model, 0)[1]; }},
    {"head_dim", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.model, 0)[model_field::head_dim] = 12; }},
    {"hidden", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.model, 0)[model_field::hidden] = 132; }},
    {"heads", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.model, 0)[model_field::heads] = 0; }},
    {"probability bits", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.model, 0)[model_field::probability_bits] = 12; }},
    {"hadamard block", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.model, 0)[model_field::hadamard_block] = 24; }},
    {"weight streams", launch_status::beyond_maxima,
     [](Case& c) { ++fields_at(c.model, 0)[model_field::weight_streams]; }},
    {"KV streams", launch_status::beyond_maxima,
     [](Case& c) { ++fields_at(c.desc, 0)[launch_field::kv_streams]; }},
    {"rows", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.desc, 0)[launch_field::rows] = 1000; }},
    {"sequences", launch_status::beyond_maxima,
     [](Case& c) { fields_at(c.desc, 0)[launch_field::sequences] = 1000; }},
    {"an unknown bit of lm_head's precision", launch_status::bad_offset,
     [](Case& c) { fields_at(c.model, 1)[model_field::lm_head_precision - 16] |= 1u << 11; }},
    {"an unknown bit of a layer's precision", launch_status::bad_offset,
     [](Case& c) {
       const uint32_t layer = fields_at(c.model, 1)[model_field::layer_table - 16] +
                              fields_at(c.desc, 0)[launch_field::layer_begin];
       fields_at(c.model, layer)[layer_field::down_precision] |= 1u << 24;
     }},
    {"layers", launch_status::bad_layers,
     [](Case& c) { fields_at(c.desc, 0)[launch_field::layer_end] = 100; }},
    {"sequence of a row", launch_status::bad_row,
     [](Case& c) { row_of(c, 0)[row_field::sequence] = 1000; }},
    {"position of a row", launch_status::bad_row,
     [](Case& c) { row_of(c, 0)[row_field::position] = 160; }},
    {"a sequence that goes back", launch_status::bad_row,
     [](Case& c) {
       // A second row for the first sequence, at the position of the first.
       uint32_t* header = fields_at(c.desc, 0);
       header[launch_field::rows] = std::max(header[launch_field::rows], 2u);
       std::copy_n(row_of(c, 0), row_field::fields, row_of(c, 1));
     }},
    {"page", launch_status::bad_page,
     [](Case& c) { fields_at(c.desc, 0)[launch_field::kv_pages] = 0; }},
};

TEST(Launch, MistakesAreRefusedAlikeAndWriteNothing) {
  const uint32_t seeds[] = {7, 1007};
  for (const uint32_t seed : seeds) {
    const bool decode = seed == 7;
    Case given = decode ? random_case(seed, case_limits<SmallDecode>(4), 4, 2)
                        : random_case(seed, case_limits<SmallPrefill>(4), 6, 4);
    for (const Mistake& mistake : kMistakes) {
      SCOPED_TRACE(mistake.what);
      Case wrong = given;
      mistake.make(wrong);
      compare_with_twin(wrong, decode ? twin_maxima<SmallDecode>() : twin_maxima<SmallPrefill>(),
                        decode ? run_small_decode : run_small_prefill, mistake.status);
    }
  }
}

TEST(Launch, TakesPageTablesThatNoRowUses) {
  Case given = random_case(11, case_limits<SmallDecode>(4), 4, 2);
  uint32_t* header = fields_at(given.desc, 0);
  header[launch_field::sequences] = SmallDecode::rows;
  compare_with_twin(given, twin_maxima<SmallDecode>(), run_small_decode);
  ++header[launch_field::sequences];
  compare_with_twin(given, twin_maxima<SmallDecode>(), run_small_decode,
                    launch_status::beyond_maxima);
}

TEST(Launch, TakesNoRows) {
  Case given = random_case(11, case_limits<SmallDecode>(4), 4, 2);
  fields_at(given.desc, 0)[launch_field::rows] = 0;
  fields_at(given.desc, 0)[launch_field::sequences] = 0;
  compare_with_twin(given, twin_maxima<SmallDecode>(), run_small_decode);
}

}  // namespace
}  // namespace flexllm::kernels
