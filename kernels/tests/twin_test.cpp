// The fast twins agree with each other bit for bit, refuse what they must, and touch nothing that a
// launch does not name. (That they agree with the numerics contract is the business of the tests
// against tests/reference/.)
#include "kernels/twin/twin.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "kernels/tests/random_case.h"

namespace flexllm::kernels {
namespace {

using twin::Isa;

std::vector<Isa> usable_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512_vnni}) {
    if (isa <= twin::best_isa()) isas.push_back(isa);
  }
  return isas;
}

// First byte that differs, or -1.
ptrdiff_t first_difference(const CardBuffer& a, const CardBuffer& b) {
  if (a.size() != b.size()) return 0;
  const auto* left = reinterpret_cast<const unsigned char*>(a.data());
  const auto* right = reinterpret_cast<const unsigned char*>(b.data());
  for (size_t i = 0; i < a.size() * sizeof(CardWord); ++i) {
    if (left[i] != right[i]) return static_cast<ptrdiff_t>(i);
  }
  return -1;
}

void expect_equal(const Case& a, const Case& b, const std::string& what) {
  EXPECT_EQ(first_difference(a.result, b.result), -1) << what << ": result";
  EXPECT_EQ(first_difference(a.scratch, b.scratch), -1) << what << ": logits";
  for (size_t i = 0; i < a.kv.size(); ++i) {
    EXPECT_EQ(first_difference(a.kv[i], b.kv[i]), -1) << what << ": kv stream " << i;
  }
}

void expect_isas_agree(const Case& input, const std::string& what) {
  Case expected = input;
  ASSERT_EQ(twin::run(expected.buffers(), kCombinedMaxima, Isa::scalar), launch_status::ok) << what;
  for (const Isa isa : usable_isas()) {
    Case actual = input;
    ASSERT_EQ(twin::run(actual.buffers(), kCombinedMaxima, isa), launch_status::ok) << what;
    expect_equal(actual, expected, what + " on " + to_string(isa));
  }
}

TEST(Twin, InstructionSetsAgreeOnRandomCases) {
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    expect_isas_agree(random_case(seed, CaseLimits{}, 1 + seed % 5, 1 + seed % 3),
                      "seed " + std::to_string(seed));
    if (HasFatalFailure()) return;
  }
}

TEST(Twin, InstructionSetsAgreeOnWideHeadsAndGroups) {
  CaseLimits limits;
  limits.hidden = 256;
  limits.ffn = 1024;
  limits.head_dim = 128;
  limits.heads = 32;
  limits.context = 400;
  limits.rows = 40;
  for (uint32_t seed = 1000; seed < 1020; ++seed) {
    expect_isas_agree(random_case(seed, limits, 16, 4), "seed " + std::to_string(seed));
    if (HasFatalFailure()) return;
  }
}

TEST(Twin, InstructionSetsAgreeOnALayerOfTheDefaultModel) {
  const Precision w8a8{2, 2, false, false};
  const Precision w4a8{1, 2, true, false};
  for (const Precision precision : {w8a8, w4a8}) {
    ModelShape shape;
    shape.layers = 1;
    shape.hidden = 576;
    shape.heads = 9;
    shape.kv_heads = 3;
    shape.head_dim = 64;
    shape.ffn = 1536;
    shape.vocab = 4096;
    shape.context = 512;
    shape.hadamard_block = 512;
    shape.qkv = shape.o = shape.gate_up = shape.down = precision;
    std::mt19937 random(7);
    Case input;
    build_model(random, shape, 16, input);
    LaunchShape launch;
    launch.sequences = {{0, 33}, {300, 1}, {31, 17}};
    build_launch(random, shape, launch, 4, input);
    expect_isas_agree(input, "default layer");
  }
}

// Changes one field of a valid launch and expects a refusal that writes only the record.
void expect_refused(uint32_t status, const std::function<void(Case&)>& damage) {
  Case input = random_case(11, CaseLimits{}, 4, 2);
  damage(input);
  Case output = input;
  EXPECT_EQ(twin::run(output.buffers(), kCombinedMaxima), status);
  const uint32_t* record = fields_at(output.result, 0);
  EXPECT_EQ(record[completion_field::magic], kResultMagic);
  EXPECT_EQ(record[completion_field::status], status);
  output.result[0] = input.result[0];
  expect_equal(output, input, "refused launch");
}

TEST(Twin, RefusesWhatIsNotALaunch) {
  const auto set = [](uint32_t field, uint32_t value) {
    return [=](Case& c) { fields_at(c.desc, 0)[field] = value; };
  };
  const auto set_model = [](uint32_t field, uint32_t value) {
    return [=](Case& c) { fields_at(c.model, 0)[field] = value; };
  };
  const auto set_row = [](uint32_t field, uint32_t value) {
    return [=](Case& c) {
      fields_at(c.desc, fields_at(c.desc, 0)[launch_field::row_table])[field] = value;
    };
  };
  expect_refused(launch_status::bad_magic, set(launch_field::magic, 1));
  expect_refused(launch_status::bad_magic, set_model(model_field::magic, 1));
  expect_refused(launch_status::bad_version, set(launch_field::version, 99));
  expect_refused(launch_status::bad_version, set_model(model_field::version, 99));
  expect_refused(launch_status::bad_layers, set(launch_field::layer_end, 1000));
  expect_refused(launch_status::beyond_maxima, set(launch_field::rows, 257));
  expect_refused(launch_status::beyond_maxima, set(launch_field::kv_streams, 3));
  expect_refused(launch_status::beyond_maxima, set_model(model_field::hidden, 4100));
  expect_refused(launch_status::beyond_maxima, set_model(model_field::head_dim, 12));
  expect_refused(launch_status::beyond_maxima, set_model(model_field::heads, 0));
  expect_refused(launch_status::beyond_maxima, set_model(model_field::hadamard_block, 48));
  expect_refused(launch_status::beyond_maxima, set_model(model_field::probability_bits, 12));
  expect_refused(launch_status::bad_offset, set_model(model_field::lm_head, 0x7fffffff));
  expect_refused(launch_status::bad_offset, set_model(model_field::rope, 0xffffffff));
  expect_refused(launch_status::bad_offset, set(launch_field::row_table, 0xffffff00));
  expect_refused(launch_status::bad_offset, set(launch_field::inputs, 0xffffff00));
  expect_refused(launch_status::bad_row, set_row(row_field::sequence, 1000));
  expect_refused(launch_status::bad_row, set_row(row_field::position, 1u << 31));
  expect_refused(launch_status::bad_page, set(launch_field::kv_pages, 0));
}

}  // namespace
}  // namespace flexllm::kernels
