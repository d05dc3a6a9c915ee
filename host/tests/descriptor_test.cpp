#include "host/descriptor.h"

#include <gtest/gtest.h>

#include <bit>
#include <stdexcept>

#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

LaunchShape small_shape() {
  LaunchShape shape;
  shape.layers = 3;
  shape.hidden = 20;  // two words, the second with padding
  shape.vocab = 100;
  shape.context = 1024;
  shape.pages = 50;
  shape.kv_streams = 4;
  shape.rows = 4;
  shape.logits_slots = 2;
  shape.page_table_words = 8;
  shape.logits = 7;
  shape.work = 11;
  return shape;
}

void embed(uint32_t token, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(token * 100 + i);
}

struct Written {
  LaunchPlan plan;
  std::vector<uint32_t> words;
};

Written write(const Launch& launch, const LaunchShape& shape = small_shape()) {
  Written out;
  out.words.assign(size_t{shape.descriptor_words()} * 16, 0xeeeeeeee);
  out.plan = write_descriptor(launch, shape, 77, embed, out.words);
  return out;
}

// Two sequences of which the second is used first; one of three page tables is not used at all.
struct Example {
  std::vector<PageId> a = std::vector<PageId>(20, 3);
  std::vector<PageId> unused{1, 2};
  std::vector<PageId> b{9, 8, 7};
  std::vector<float> hidden = std::vector<float>(20, 0.5f);
  Launch launch;

  Example() {
    for (uint32_t i = 0; i < 20; ++i) a[i] = 20 + i;
    launch.stage = Stage::prefill;
    launch.sequences = {a, unused, b};
    launch.layer_begin = 1;
    launch.rows.resize(3);
    launch.rows[0] = {.sequence = 2, .position = 40, .token = 6};
    launch.rows[0].outputs.target_logprob = true;
    launch.rows[0].target = 99;
    launch.rows[1] = {.sequence = 0, .position = 543, .token = 0, .hidden = hidden};
    launch.rows[1].outputs = {.residual = true, .row_result = true};
    launch.rows[2] = {.sequence = 2, .position = 41, .token = 1};
    launch.rows[2].outputs.final_norm = true;
  }
};

TEST(Descriptor, GoldenWords) {
  const Example example;
  const Written written = write(example.launch);
  const auto row_of = [&](size_t word) {
    return std::vector<uint32_t>(
        written.words.begin() + static_cast<std::ptrdiff_t>(word * 16),
        written.words.begin() + static_cast<std::ptrdiff_t>(word * 16 + 16));
  };
  using Word = std::vector<uint32_t>;
  // Header 0-1, rows 2-4, page tables from 5 on with a stride of 2 words (17 pages), inputs from 9.
  EXPECT_EQ(row_of(0), (Word{0x4c584c46, 1, 77, 1, 3, 3, 2, 2, 5, 2, 9, 4, 50, 7, 2, 11}));
  EXPECT_EQ(row_of(1), (Word{1 + 1 + 2 + 9 + 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(row_of(2), (Word{0, 40, 4, 99, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(row_of(3), (Word{1, 543, 1 | 8, 0, 2, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(row_of(4), (Word{0, 41, 2, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(row_of(5), (Word{9, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(row_of(6), Word(16, 0));
  EXPECT_EQ(row_of(7), (Word{20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35}));
  EXPECT_EQ(row_of(8), (Word{36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(std::bit_cast<float>(written.words[9 * 16]), 600.0f);
  EXPECT_EQ(std::bit_cast<float>(written.words[10 * 16 + 3]), 619.0f);
  EXPECT_EQ(std::bit_cast<float>(written.words[11 * 16]), 0.5f);
  EXPECT_EQ(std::bit_cast<float>(written.words[13 * 16]), 100.0f);
  EXPECT_EQ(written.plan.descriptor_words, 15u);
  EXPECT_EQ(written.plan.result_words, 15u);
}

TEST(Descriptor, TheLargestLaunchFits) {
  const LaunchShape shape = small_shape();
  std::vector<PageId> table(32, 1);
  Launch launch;
  launch.sequences.assign(4, table);
  for (uint32_t i = 0; i < 4; ++i) {
    Row row{.sequence = i, .position = 1023, .token = 1};
    row.outputs = {.residual = true, .final_norm = true, .row_result = i < 2};
    launch.rows.push_back(row);
  }
  const Written written = write(launch, shape);
  EXPECT_EQ(written.plan.descriptor_words, shape.descriptor_words());
  EXPECT_EQ(written.plan.result_words, shape.result_words());
}

TEST(Descriptor, RefusesWhatContradictsItselfOrTheModel) {
  const auto refused = [](auto change) {
    Example example;
    change(example.launch);
    try {
      write(example.launch);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refused([](Launch&) {}));
  EXPECT_TRUE(refused([](Launch& l) { l.rows.clear(); }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows.resize(5, l.rows[0]); }));
  EXPECT_TRUE(refused([](Launch& l) { l.layer_begin = 4; }));
  EXPECT_TRUE(refused([](Launch& l) { l.layer_end = 0; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[0].sequence = 3; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[1].position = 1024; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[1].position = 640; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[2].position = 40; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[0].token = 100; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[1].hidden = l.rows[1].hidden.first(19); }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[0].target = 100; }));
  EXPECT_TRUE(refused([](Launch& l) { l.rows[2].outputs.row_result = true; }));
  const std::vector<PageId> wrong{9, 50, 7};
  EXPECT_TRUE(refused([&](Launch& l) { l.sequences[2] = wrong; }));
}

TEST(Descriptor, AnUnusedPartOfAPageTableMayHoldAnything) {
  Example example;
  const std::vector<PageId> table{9, 8, 0xffffffff};
  example.launch.sequences[2] = table;
  EXPECT_NO_THROW(write(example.launch));
}

class Results : public testing::Test {
 protected:
  void SetUp() override {
    words_.assign(size_t{written_.plan.result_words} * 16, 0);
    words_[kernels::completion_field::magic] = kernels::kResultMagic;
    words_[kernels::completion_field::version] = kernels::kContractVersion;
    words_[kernels::completion_field::id] = 77;
  }
  auto read() { return read_results(written_.plan, small_shape(), words_); }

  const Example example_;
  const Written written_ = write(example_.launch);
  std::vector<uint32_t> words_;
};

TEST_F(Results, AreFoundWhereTheDescriptorPutThem) {
  words_[1 * 16 + 3] = std::bit_cast<uint32_t>(-2.5f);  // target log-probability of row 0
  words_[2 * 16] = std::bit_cast<uint32_t>(1.5f);       // residual of row 1
  words_[4 * 16] = 42;                                  // its arg-max
  words_[4 * 16 + 1] = std::bit_cast<uint32_t>(8.0f);
  words_[5 * 16] = std::bit_cast<uint32_t>(8.0f);  // its largest logit
  words_[9 * 16] = 42;
  words_[13 * 16 + 16 + 3] = std::bit_cast<uint32_t>(4.0f);  // final norm of row 2
  const auto rows = read();
  ASSERT_TRUE(rows.has_value()) << rows.error().message;
  EXPECT_EQ((*rows)[0].target_logprob, -2.5f);
  EXPECT_TRUE((*rows)[0].top_logits.empty());
  EXPECT_EQ((*rows)[1].residual.size(), 20u);
  EXPECT_EQ((*rows)[1].residual[0], 1.5f);
  EXPECT_EQ((*rows)[1].argmax, 42u);
  EXPECT_EQ((*rows)[1].max, 8.0f);
  ASSERT_EQ((*rows)[1].top_logits.size(), 64u);
  EXPECT_EQ((*rows)[1].top_logits[0], 8.0f);
  EXPECT_EQ((*rows)[1].top_ids[0], 42u);
  EXPECT_EQ((*rows)[2].final_norm[19], 4.0f);
  EXPECT_TRUE((*rows)[2].residual.empty());
}

TEST_F(Results, OfAnotherLaunchAreNotTaken) {
  words_[kernels::completion_field::id] = 76;
  ASSERT_FALSE(read().has_value());
  EXPECT_EQ(read().error().kind, DeviceError::Kind::launch_failed);
}

TEST_F(Results, SayWhyALaunchWasRefused) {
  const std::pair<uint32_t, const char*> reasons[] = {
      {kernels::launch_status::beyond_maxima, "larger than this kernel build"},
      {kernels::launch_status::bad_page, "KV page"},
      {kernels::launch_status::bad_version, "contract version"},
      {99, "status 99"}};
  for (const auto& [status, sentence] : reasons) {
    words_[kernels::completion_field::status] = status;
    ASSERT_FALSE(read().has_value());
    EXPECT_NE(read().error().message.find(sentence), std::string::npos) << read().error().message;
  }
}

}  // namespace
}  // namespace flexllm::host
