#include "host/kv_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

namespace flexllm::host {
namespace {

TEST(PageAllocator, DealsAllPagesOnceAndThenNone) {
  PageAllocator pages(10, 4);
  const auto all = pages.allocate(10);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(std::set<PageId>(all->begin(), all->end()).size(), 10u);
  EXPECT_LT(*std::max_element(all->begin(), all->end()), 10u);
  EXPECT_EQ(pages.available(), 0u);
  EXPECT_FALSE(pages.allocate(1).has_value());
  EXPECT_TRUE(pages.allocate(0).has_value());
}

TEST(PageAllocator, AnAllocationThatDoesNotFitTakesNothing) {
  PageAllocator pages(8, 2);
  ASSERT_TRUE(pages.allocate(5).has_value());
  EXPECT_FALSE(pages.allocate(4).has_value());
  EXPECT_EQ(pages.available(), 3u);
}

TEST(PageAllocator, ASequenceGoesOnInTheNextBank) {
  PageAllocator pages(64, 4);
  const auto first = *pages.allocate(3);
  (void)pages.allocate(5);  // another sequence
  const auto next = *pages.allocate(2, first.back());
  EXPECT_EQ(next[0] % 4, (first.back() + 1) % 4);
  EXPECT_EQ(next[1] % 4, (first.back() + 2) % 4);
}

TEST(PageAllocator, RefusesPagesWithoutOwner) {
  PageAllocator pages(4, 2);
  EXPECT_THROW(pages.share(0), std::logic_error);
  EXPECT_THROW(pages.release(0), std::logic_error);
  EXPECT_THROW(pages.release(4), std::logic_error);
  EXPECT_THROW((void)pages.owners(4), std::out_of_range);
  EXPECT_THROW(PageAllocator(4, 0), std::invalid_argument);
}

// Any sequence of calls agrees with a model that counts owners, and neighbours differ in bank
// whenever the free pages allowed it.
TEST(PageAllocator, AgreesWithAModelUnderRandomUse) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    const uint32_t total = 1 + static_cast<uint32_t>(random() % 60);
    const uint32_t banks = 1 + static_cast<uint32_t>(random() % 5);
    PageAllocator pages(total, banks);
    std::map<PageId, uint32_t> model;
    const auto any_owned = [&] {
      return std::next(model.begin(), static_cast<std::ptrdiff_t>(random() % model.size()));
    };
    for (int step = 0; step < 400; ++step) {
      const uint32_t action = static_cast<uint32_t>(random() % 4);
      if (action < 2) {
        std::vector<uint32_t> room(banks, 0);
        for (PageId page = 0; page < total; ++page) room[page % banks] += !model.contains(page);
        const uint32_t count = static_cast<uint32_t>(random() % 6);
        const auto dealt = pages.allocate(count);
        ASSERT_EQ(dealt.has_value(), count <= total - model.size());
        for (size_t i = 0; dealt && i < dealt->size(); ++i) {
          ASSERT_TRUE(model.emplace((*dealt)[i], 1).second) << "dealt twice";
          const uint32_t bank = (*dealt)[i] % banks;
          const bool other_has_room = [&] {
            for (uint32_t b = 0; b < banks; ++b) {
              if (b != bank && room[b] > 0) return true;
            }
            return false;
          }();
          if (i > 0 && other_has_room) {
            ASSERT_NE(bank, (*dealt)[i - 1] % banks);
          }
          --room[bank];
        }
      } else if (!model.empty() && action == 2) {
        const auto page = any_owned();
        pages.share(page->first);
        ++page->second;
      } else if (!model.empty()) {
        const auto page = any_owned();
        pages.release(page->first);
        if (--page->second == 0) model.erase(page);
      }
      ASSERT_EQ(pages.available(), total - model.size());
      for (PageId page = 0; page < total; ++page) {
        const auto known = model.find(page);
        ASSERT_EQ(pages.owners(page), known == model.end() ? 0 : known->second);
      }
    }
  }
}

}  // namespace
}  // namespace flexllm::host
