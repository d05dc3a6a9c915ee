// Pages that are shared, taken over, moved to host memory and brought back: their contents are
// always the tokens that they stand for, and none is lost.
#include "server/scheduling/page_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "server/tests/fake_backend.h"

namespace flexllm::server::testing {
namespace {

constexpr uint32_t kPageTokens = 4;

FakeModel model_of(uint32_t pages) {
  FakeModel model;
  model.limits.page_tokens = kPageTokens;
  model.limits.pages = pages;
  return model;
}

// A backend with a cache, and what a sequence would do with both.
struct Pages {
  explicit Pages(uint32_t pages, PageCache::Options options = {})
      : backend(model_of(pages), card), cache(backend, options) {}

  uint32_t limit(const std::vector<uint32_t>& tokens) const {
    return static_cast<uint32_t>(tokens.size() - 1) / kPageTokens;
  }
  // Takes over what is known and computes the rest. False: no room, and nothing is held.
  bool compute(PageCache::Table& table, const std::vector<uint32_t>& tokens) {
    taken = cache.extend(table, tokens, limit(tokens));
    const auto need = static_cast<uint32_t>((tokens.size() + kPageTokens - 1) / kPageTokens);
    if (!cache.grow(table, need)) {
      cache.release(table);
      return false;
    }
    const int due = card->fail_copy_after.exchange(-1);  // what is written here does not count
    for (size_t page = table.shared(); page < need; ++page) {
      std::vector<uint32_t> contents(kPageTokens, UINT32_MAX);
      for (size_t i = 0; i < kPageTokens && page * kPageTokens + i < tokens.size(); ++i) {
        contents[i] = tokens[page * kPageTokens + i];
      }
      EXPECT_TRUE(backend.write_page(table.pages()[page], std::as_bytes(std::span(contents))));
    }
    card->fail_copy_after = due;
    cache.insert(table, tokens, static_cast<uint32_t>(tokens.size() / kPageTokens));
    return true;
  }
  void expect_holds(const PageCache::Table& table, const std::vector<uint32_t>& tokens) {
    const int due = card->fail_copy_after.exchange(-1);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto bytes = backend.read_page(table.pages()[i / kPageTokens]);
      uint32_t token = 0;
      std::memcpy(&token, bytes->data() + (i % kPageTokens) * sizeof(token), sizeof(token));
      ASSERT_EQ(token, tokens[i]) << i;
    }
    card->fail_copy_after = due;
  }

  std::shared_ptr<FakeCard> card = std::make_shared<FakeCard>();
  FakeBackend backend;
  PageCache cache;
  uint32_t taken = 0;
};

std::vector<uint32_t> tokens_of(std::initializer_list<uint32_t> pages, uint32_t tail = 1) {
  std::vector<uint32_t> tokens;
  for (const uint32_t page : pages) {
    for (uint32_t i = 0; i < kPageTokens; ++i) tokens.push_back(10 * page + i);
  }
  for (uint32_t i = 0; i < tail; ++i) tokens.push_back(1000 + i);
  return tokens;
}

TEST(PageCache, ALaterSequenceTakesOverTheSameBeginning) {
  Pages pages(16);
  PageCache::Table first;
  PageCache::Table second;
  ASSERT_TRUE(pages.compute(first, tokens_of({1, 2, 3})));
  EXPECT_EQ(pages.taken, 0u);
  ASSERT_TRUE(pages.compute(second, tokens_of({1, 2, 4})));
  EXPECT_EQ(pages.taken, 2u);
  EXPECT_EQ(first.pages()[1], second.pages()[1]);
  EXPECT_NE(first.pages()[2], second.pages()[2]);
  pages.expect_holds(second, tokens_of({1, 2, 4}));
  pages.cache.release(first);
  pages.cache.release(second);
  EXPECT_EQ(pages.cache.available(), 16u);
  EXPECT_EQ(pages.cache.idle_pages(), 4u);
  ASSERT_TRUE(pages.compute(first, tokens_of({1, 2, 3})));
  EXPECT_EQ(pages.taken, 3u);
  // Not the same page at another place.
  ASSERT_TRUE(pages.compute(second, tokens_of({2, 1})));
  EXPECT_EQ(pages.taken, 0u);
}

TEST(PageCache, TheLastTokenIsNotTakenOver) {
  Pages pages(16);
  PageCache::Table table;
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2}, 0)));
  pages.cache.release(table);
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2}, 0)));
  EXPECT_EQ(pages.taken, 1u);
}

TEST(PageCache, OneOfTwoThatComputeTheSameIsKept) {
  Pages pages(16);
  const auto tokens = tokens_of({1, 2});
  PageCache::Table a;
  PageCache::Table b;
  ASSERT_TRUE(pages.cache.grow(a, 3));
  ASSERT_TRUE(pages.cache.grow(b, 3));
  EXPECT_TRUE(pages.cache.same_next_page(a, tokens, b, tokens));
  EXPECT_FALSE(pages.cache.same_next_page(a, tokens, b, tokens_of({3})));
  EXPECT_FALSE(pages.cache.same_next_page(a, tokens, b, tokens_of({}, 2)));
  pages.cache.insert(a, tokens, 2);
  EXPECT_FALSE(pages.cache.same_next_page(a, tokens, b, tokens));
  pages.cache.insert(b, tokens, 1);
  EXPECT_EQ(a.pages()[0], b.pages()[0]);
  EXPECT_EQ(pages.cache.extend(b, tokens, 2), 1u) << "and the rest is taken over";
  EXPECT_EQ(a.pages()[1], b.pages()[1]);
  EXPECT_EQ(pages.cache.available(), 16u - 4u);
}

TEST(PageCache, TheLeastRecentlyUsedMakesRoomFromItsEnd) {
  Pages pages(6);
  PageCache::Table table;
  for (const uint32_t text : {1u, 5u}) {
    ASSERT_TRUE(pages.compute(table, tokens_of({text, text + 1}, 1)));
    pages.cache.release(table);
  }
  ASSERT_TRUE(pages.compute(table, tokens_of({9, 10}, 1)));  // 3 pages, 2 are free
  pages.cache.release(table);
  ASSERT_TRUE(pages.compute(table, tokens_of({5, 6}, 1)));
  EXPECT_EQ(pages.taken, 2u);
  pages.cache.release(table);
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2}, 1)));
  EXPECT_EQ(pages.taken, 1u) << "the end of the oldest is gone, its beginning is not";
  EXPECT_FALSE(pages.cache.grow(table, 7));
  EXPECT_EQ(table.pages().size(), 3u);
}

TEST(PageCache, PagesComeBackFromHostMemory) {
  Pages pages(4, {.reuse = true, .host_bytes = 1 << 10});
  PageCache::Table table;
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2, 3})));
  pages.cache.release(table);
  ASSERT_TRUE(pages.compute(table, tokens_of({4, 5, 6})));
  pages.cache.release(table);
  EXPECT_EQ(pages.cache.counts().to_host, 3u);
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2, 3})));
  EXPECT_EQ(pages.taken, 3u);
  EXPECT_EQ(pages.cache.counts().from_host, 3u);
  pages.expect_holds(table, tokens_of({1, 2, 3}));
}

TEST(PageCache, HostMemoryIsBounded) {
  constexpr size_t kTwoPages = 2 * kPageTokens * sizeof(uint32_t);
  Pages pages(4, {.reuse = true, .host_bytes = kTwoPages});
  PageCache::Table table;
  for (uint32_t text = 1; text < 30; text += 3) {
    ASSERT_TRUE(pages.compute(table, tokens_of({text, text + 1, text + 2})));
    pages.cache.release(table);
    EXPECT_LE(pages.cache.counts().host_bytes, kTwoPages);
  }
  EXPECT_GT(pages.cache.counts().forgotten, 0u);
}

TEST(PageCache, ACardThatCannotCopyWorksWithoutHostMemory) {
  Pages pages(4, {.reuse = true, .host_bytes = 1 << 10});
  pages.card->fault_kind = host::DeviceError::Kind::launch_failed;  // not broken
  PageCache::Table table;
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2, 3})));
  pages.cache.release(table);
  pages.card->fail_copy_after = 1;  // the second of three
  ASSERT_TRUE(pages.cache.grow(table, 4));
  EXPECT_EQ(pages.cache.counts().host_bytes, 0u);
  EXPECT_EQ(pages.cache.counts().to_host, 1u);
  pages.cache.release(table);
  EXPECT_EQ(pages.cache.available(), 4u);
}

TEST(PageCache, SuspectPagesAreForgottenUnlessOthersUseThem) {
  Pages pages(16);
  PageCache::Table good;
  PageCache::Table bad;
  ASSERT_TRUE(pages.compute(good, tokens_of({1, 2})));
  ASSERT_TRUE(pages.compute(bad, tokens_of({1, 3})));
  pages.cache.release(bad, PageCache::Keep::no);
  ASSERT_TRUE(pages.compute(bad, tokens_of({1, 3})));
  EXPECT_EQ(pages.taken, 1u);
}

TEST(PageCache, ClearForgetsAll) {
  Pages pages(4, {.reuse = true, .host_bytes = 1 << 10});
  PageCache::Table table;
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2, 3})));
  EXPECT_THROW(pages.cache.clear(), std::logic_error);
  pages.cache.release(table);
  ASSERT_TRUE(pages.compute(table, tokens_of({4})));
  pages.cache.release(table);
  pages.cache.clear();
  EXPECT_EQ(pages.backend.pages().available(), 4u);
  EXPECT_EQ(pages.cache.counts().host_bytes, 0u);
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2, 3})));
  EXPECT_EQ(pages.taken, 0u);
}

TEST(PageCache, WithoutReuseNothingStays) {
  Pages pages(16, {.reuse = false, .host_bytes = 0});
  PageCache::Table table;
  ASSERT_TRUE(pages.compute(table, tokens_of({1, 2})));
  PageCache::Table other;
  EXPECT_FALSE(pages.cache.same_next_page(table, tokens_of({1}), other, tokens_of({1})));
  pages.cache.release(table);
  EXPECT_EQ(pages.backend.pages().available(), 16u);
}

// Sequences of a small alphabet come, grow, are taken over, fail and go in any order.
TEST(PageCache, RandomSequencesKeepTheirContents) {
  std::mt19937 random(7);
  const auto draw = [&](uint32_t below) { return static_cast<uint32_t>(random() % below); };
  for (const size_t host_bytes : {size_t{0}, size_t{200}, size_t{1} << 12}) {
    Pages pages(24, {.reuse = true, .host_bytes = host_bytes});
    pages.card->fault_kind = host::DeviceError::Kind::launch_failed;
    struct Live {
      PageCache::Table table;
      std::vector<uint32_t> tokens;
    };
    std::vector<Live> live;
    uint64_t taken = 0;
    for (int step = 0; step < 4000; ++step) {
      if (step == 3000) pages.card->fail_copy_after = 5;
      if (draw(2) == 0) {
        Live next;
        const uint32_t length = 1 + draw(7 * kPageTokens);
        for (uint32_t i = 0; i < length; ++i) {
          next.tokens.push_back(i % kPageTokens == 0 ? draw(2) : 0);
        }
        if (pages.compute(next.table, next.tokens)) live.push_back(std::move(next));
        taken += pages.taken;
      } else if (!live.empty()) {
        const auto gone = live.begin() + draw(static_cast<uint32_t>(live.size()));
        pages.expect_holds(gone->table, gone->tokens);
        pages.cache.release(gone->table, draw(8) == 0 ? PageCache::Keep::no : PageCache::Keep::yes);
        live.erase(gone);
      }
    }
    EXPECT_GT(taken, 1000u);
    for (auto& sequence : live) pages.cache.release(sequence.table);
    EXPECT_EQ(pages.cache.available(), 24u);
    pages.cache.clear();
    EXPECT_EQ(pages.backend.pages().available(), 24u);
  }
}

}  // namespace
}  // namespace flexllm::server::testing
