// The parts of the card that need no XRT: banks, the host pool, fault rules, hostile bitstreams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xclbin.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "host/card/bank.h"
#include "host/card/bitstream.h"
#include "host/card/fault.h"
#include "host/card/host_pool.h"

namespace flexllm::card {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Bank, FitsBuffersIntoTheFirstGap) {
  Bank bank("HBM[0]", 0x10000000, 16 * kPageBytes);
  const auto a = bank.allocate(4 * kPageBytes);
  const auto b = bank.allocate(1);  // a whole page
  const auto c = bank.allocate(4 * kPageBytes);
  EXPECT_EQ(a, 0x10000000u);
  EXPECT_EQ(b, *a + 4 * kPageBytes);
  EXPECT_EQ(c, *b + kPageBytes);
  bank.release(*a);
  EXPECT_EQ(bank.allocate(5 * kPageBytes), *c + 4 * kPageBytes);
  EXPECT_EQ(bank.allocate(4 * kPageBytes), *a);
  EXPECT_EQ(bank.allocate(3 * kPageBytes), std::nullopt);
  EXPECT_EQ(bank.usage().bytes, 14 * kPageBytes);
  EXPECT_EQ(bank.usage().buffers, 4u);
}

TEST(Bank, RefusesWhatCannotFit) {
  Bank bank("HBM[0]", 0, 4 * kPageBytes);
  EXPECT_EQ(bank.allocate(0), std::nullopt);
  EXPECT_EQ(bank.allocate(4 * kPageBytes + 1), std::nullopt);
  EXPECT_EQ(bank.allocate(~0ull), std::nullopt);
  EXPECT_EQ(bank.allocate(4 * kPageBytes), 0u);
}

// Whatever is allocated and released in whatever order, live buffers never overlap.
TEST(Bank, BuffersNeverOverlap) {
  Bank bank("HBM[0]", 0, 256 * kPageBytes);
  std::mt19937 random(7);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> live;
  for (int step = 0; step < 2000; ++step) {
    if (live.empty() || random() % 2 == 0) {
      const std::uint64_t bytes = 1 + random() % (20 * kPageBytes);
      if (const auto at = bank.allocate(bytes)) {
        for (const auto& [start, length] : live) {
          ASSERT_TRUE(*at + whole_pages(bytes) <= start || start + length <= *at);
        }
        ASSERT_TRUE(bank.holds(*at, bytes));
        live.emplace_back(*at, whole_pages(bytes));
      }
    } else {
      std::swap(live[random() % live.size()], live.back());
      bank.release(live.back().first);
      live.pop_back();
    }
  }
}

TEST(Bank, KnowsItsBounds) {
  const Bank bank("HBM[1]", 0x1000, 2 * kPageBytes);
  EXPECT_EQ(bank.at(0xFFF).data, nullptr);
  EXPECT_EQ(bank.at(0x1000).bytes, 2 * kPageBytes);
  EXPECT_EQ(bank.at(0x2FFF).bytes, 1u);
  EXPECT_EQ(bank.at(0x3000).data, nullptr);
  EXPECT_FALSE(bank.holds(0x2000, ~0ull));
}

TEST(Bank, MemoryOfAReleasedBufferIsGivenBack) {
  Bank bank("HBM[0]", 0, 4 * kPageBytes);
  const auto address = bank.allocate(kPageBytes);
  const int value = 7;
  bank.write(*address, &value, sizeof value);
  bank.release(*address);
  int read = -1;
  bank.read(*address, &read, sizeof read);
  EXPECT_EQ(read, 0);
}

TEST(HostPool, BlocksAreApartAndStartAtZero) {
  const auto pool = HostPool::create();
  HostBlock a = pool->allocate(100);
  const HostBlock b = pool->allocate(5000);
  EXPECT_EQ(a.bytes(), kPageBytes);
  EXPECT_EQ(b.bytes(), 2 * kPageBytes);
  EXPECT_GE(b.offset(), a.offset() + a.bytes());
  std::memset(a.data(), 1, a.bytes());
  EXPECT_EQ(b.data()[0], std::byte{0});
  HostBlock moved = std::move(a);
  EXPECT_EQ(moved.data()[0], std::byte{1});
}

FaultSite launch_of(const std::string& kernel, int card = 0) {
  return {.card = card, .kernel = kernel};
}

TEST(FaultScript, CountsWhatMatches) {
  FaultScript script;
  script.load(json::parse(
      R"({"faults": [{"fault": "fail", "kernel": "decode", "card": 1, "nth": 2, "times": 2}]})"));
  const auto fires = [&](const char* kernel, int card) {
    return script.fire(FaultEvent::launch, launch_of(kernel, card)).has_value();
  };
  EXPECT_FALSE(fires("decode", 1));
  EXPECT_FALSE(fires("decode", 0));
  EXPECT_FALSE(fires("prefill", 1));
  EXPECT_TRUE(fires("decode", 1));
  EXPECT_TRUE(fires("decode", 1));
  EXPECT_FALSE(fires("decode", 1));
  script.clear();
  EXPECT_FALSE(fires("decode", 1));
}

TEST(FaultScript, ChanceRepeatsWithItsSeed) {
  const auto pattern = [](int seed) {
    FaultScript script;
    script.load({{"seed", static_cast<unsigned>(seed)},
                 {"faults", {{{"fault", "fail"}, {"probability", 0.3}, {"times", 0u}}}}});
    std::string out;
    for (int i = 0; i < 200; ++i) {
      out += script.fire(FaultEvent::launch, launch_of("decode")) ? 'x' : '.';
    }
    return out;
  };
  EXPECT_EQ(pattern(5), pattern(5));
  EXPECT_NE(pattern(5), pattern(6));
  const auto text = pattern(5);
  const auto hits = std::count(text.begin(), text.end(), 'x');
  EXPECT_GT(hits, 30);
  EXPECT_LT(hits, 90);
}

TEST(FaultScript, RefusesWhatItDoesNotUnderstand) {
  const auto why = [](const char* rule) -> std::string {
    FaultScript script;
    try {
      script.add(json::parse(rule));
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(why(R"({"fault": "melt"})"), HasSubstr("'melt' is not a fault"));
  EXPECT_THAT(why(R"({})"), HasSubstr("is not a fault"));
  EXPECT_THAT(why(R"([])"), HasSubstr("not an object"));
  EXPECT_THAT(why(R"({"fault": "fail", "ms": 3})"), HasSubstr("ms: is not a key of 'fail'"));
  EXPECT_THAT(why(R"({"fault": "fail", "nth": 0})"), HasSubstr("nth: counts from 1"));
  EXPECT_THAT(why(R"({"fault": "fail", "nth": -1})"), HasSubstr("nth: has the wrong type"));
  EXPECT_THAT(why(R"({"fault": "fail", "probability": 0})"), HasSubstr("probability"));
  EXPECT_THAT(why(R"({"fault": "slow", "on": "open"})"), HasSubstr("on:"));
  EXPECT_THAT(why(R"({"fault": "hang", "on": "sync"})"), HasSubstr("on: is not a key"));
  EXPECT_EQ(why(R"({"fault": "slow", "on": "sync", "bank": "HBM[3]", "to_card": true})"),
            "accepted");
  FaultScript script;
  EXPECT_THAT([&] { script.load(json::parse(R"({"fault": []})")); },
              ThrowsMessage<std::runtime_error>(HasSubstr("'fault' is unknown")));
}

class HostileBitstream : public ::testing::Test {
 protected:
  static constexpr char kShell[] = "emulated_u280_gen3x16_xdma_base_1";

  HostileBitstream() {
    std::ifstream file(CARD_TEST_BITSTREAMS "/demo.xclbin", std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    image.resize(bytes.size());
    std::memcpy(image.data(), bytes.data(), bytes.size());
  }

  int error(std::span<const std::byte> bytes) {
    try {
      parse_bitstream(bytes, {}, kShell);
    } catch (const BitstreamError& refused) {
      return refused.error();
    }
    return 0;
  }
  template <typename T>
  void put(std::size_t offset, T value) {
    std::memcpy(image.data() + offset, &value, sizeof value);
  }

  std::vector<std::byte> image;
};

// Without the kernel table that libxrt_core adds, compute units have no kernels.
TEST_F(HostileBitstream, IsNotThePristineOne) {
  EXPECT_THAT([&] { parse_bitstream(image, {}, kShell); },
              ThrowsMessage<BitstreamError>(HasSubstr("has no kernel in the metadata")));
  EXPECT_EQ(error({}), EINVAL);
  EXPECT_THAT([&] { parse_bitstream(image, {}, "emulated_v80"); },
              ThrowsMessage<BitstreamError>(HasSubstr("this card has emulated_v80")));
}

TEST_F(HostileBitstream, IsCutAnywhere) {
  for (std::size_t length = 0; length < image.size(); length += 1 + image.size() / 97) {
    std::vector<std::byte> cut(image.begin(), image.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(error(cut), EINVAL) << length;
    if (length >= offsetof(axlf, m_sections)) {  // the header claims the cut length
      const std::uint64_t claimed = length;
      std::memcpy(cut.data() + offsetof(axlf, m_header.m_length), &claimed, sizeof claimed);
      EXPECT_EQ(error(cut), EINVAL) << length;
    }
  }
}

TEST_F(HostileBitstream, PointsOutsideItself) {
  const std::size_t first = offsetof(axlf, m_sections);
  put(first + offsetof(axlf_section_header, m_sectionOffset), ~0ull);
  EXPECT_EQ(error(image), EINVAL);
}

TEST_F(HostileBitstream, ClaimsHugeTables) {
  put(offsetof(axlf, m_header.m_numSections), 0xFFFFFFFFu);
  EXPECT_EQ(error(image), EINVAL);
}

TEST_F(HostileBitstream, HoldsCodeThatDoesNotLoad) {
  const auto elf = std::search(image.begin(), image.end(), "\177ELF", "\177ELF" + 4,
                               [](std::byte a, char b) { return a == static_cast<std::byte>(b); });
  ASSERT_NE(elf, image.end());
  const auto at = static_cast<std::size_t>(elf - image.begin());
  put(at + 18, std::uint16_t{0xFFFF});  // another machine
  EXPECT_EQ(error(image), ENOEXEC);
  put(at, std::uint32_t{0});
  EXPECT_EQ(error(image), EINVAL);
}

// Random damage is refused or harmless, never undefined. (The kernel library is left alone: the
// dynamic loader does not promise as much.)
TEST_F(HostileBitstream, IsDamagedAnywhereButInItsCode) {
  const std::vector<std::byte> pristine = image;
  const std::size_t tables = offsetof(axlf, m_sections) + 10 * sizeof(axlf_section_header);
  axlf_section_header code;
  std::memcpy(&code, image.data() + offsetof(axlf, m_sections), sizeof code);
  const std::size_t behind = code.m_sectionOffset + code.m_sectionSize;
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    image = pristine;
    const std::size_t at =
        round % 2 == 0 ? sizeof(axlf_section_header) + random() % tables : behind + random() % 4096;
    const bool hits_code_header = at >= offsetof(axlf, m_sections) &&
                                  at < offsetof(axlf, m_sections) + sizeof(axlf_section_header);
    if (hits_code_header) continue;
    put(at, static_cast<std::uint8_t>(random()));
    error(image);
  }
}

}  // namespace
}  // namespace flexllm::card
