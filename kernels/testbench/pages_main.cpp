// Testbench of pages_top: records in a random order, then the pages that they make.
#include "kernels/testbench/attention.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void pages_top(Word* arena0, Word* arena1, Stage stage, ModelInfo info,
                          Stream<PageStore>& stores, Stream<PageRequest>& requests,
                          Stream<Word>& scales, Stream<Word>& keys, Stream<Word>& values);

static void run(uint32_t kv_heads, uint32_t head_dim, std::mt19937& random,
                Differences& differences) {
  const ModelInfo info = model_info(kv_heads, kv_heads, head_dim, 255);
  const KvLayout kv = info.kv();
  const uint32_t page_count = 7;
  const uint32_t arena_words = 4096;
  Pages<OnePort> expected(kv, page_count);
  for (uint32_t page = 0; page < page_count; ++page) {
    for (uint32_t t = 0; t < kPageTokens; ++t) {
      expected.write(page, t, random_record(random, info));
    }
  }
  for (std::vector<Word>& arena : expected.words) arena.resize(arena_words, noise_word());
  std::vector<std::pair<uint32_t, uint32_t>> places;
  for (uint32_t s = 0; s < OnePort::kv_streams; ++s) {
    for (uint32_t w = 0; w < arena_words; ++w) {
      if (get_lane(expected.words[s][w], 0) != get_lane(noise_word(), 0)) places.emplace_back(s, w);
    }
  }
  std::shuffle(places.begin(), places.end(), random);
  Stage stage = {};
  stage.kind = kQkv;
  Queue<PageStore> stores("stores");
  Queue<PageRequest> requests("requests");
  Queue<Word> scales("scales");
  Queue<Word> keys("keys");
  Queue<Word> values("values");
  for (const std::pair<uint32_t, uint32_t>& place : places) {
    stores.write(
        PageStore{place.first, place.second, false, expected.words[place.first][place.second]});
  }
  stores.write(PageStore{0, 0, true, zero_word()});
  std::vector<PageRequest> wanted;
  for (uint32_t page = 0; page < page_count; ++page) {
    const uint32_t word = page / OnePort::kv_streams * kv.page_words() + kLayer * kv.layer_words();
    const uint32_t tokens = page % 3 == 0 ? kPageTokens : 1 + below(random, kPageTokens);
    wanted.push_back(PageRequest{false, page % 2 == 1, page % OnePort::kv_streams, word, tokens});
    wanted.push_back(PageRequest{false, page % 2 == 0, page % OnePort::kv_streams, word, tokens});
  }
  for (const PageRequest& page : wanted) requests.write(page);
  requests.write(PageRequest{true, false, 0, 0, 0});
  std::vector<std::vector<Word>> arenas(OnePort::kv_streams,
                                        std::vector<Word>(arena_words, noise_word()));
  pages_top(arenas[0].data(), arenas[1].data(), stage, info, stores, requests, scales, keys,
            values);
  for (const PageRequest& page : wanted) {
    const auto compare = [&](const char* what, uint32_t begin, uint32_t words, Stream<Word>& from) {
      for (uint32_t w = 0; w < words; ++w) {
        const uint32_t at = page.word + begin + w;
        differences.compare_words(what, at, expected.words[page.arena][at], from.read());
      }
    };
    if (page.values) {
      compare("values", kv.values(), page.tokens * kv.token_words(), values);
    } else {
      compare("scales", 0, page.tokens * kv.scale_words(), scales);
      compare("keys", kv.keys(), page.tokens * kv.token_words(), keys);
    }
  }
  differences.expect_empty("stores", stores.empty());
  differences.expect_empty("requests", requests.empty());
  differences.expect_empty("scales", scales.empty());
  differences.expect_empty("keys", keys.empty());
  differences.expect_empty("values", values.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  run(1, 8, random, differences);
  run(2, 40, random, differences);
  run(3, 64, random, differences);
  return differences.status();
}
