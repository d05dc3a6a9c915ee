// Token masks of a grammar: how long the scheduler's thread is held for one, first and again, over
// made-up vocabularies of words, bytes and pieces of JSON.
#include <benchmark/benchmark.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "server/grammar/grammar_cache.h"
#include "server/grammar/schema_compiler.h"

namespace flexllm::server::grammar {
namespace {

constexpr const char* kSchema =
    R"({"type":"object","required":["name","tags"],"properties":{
        "name":{"type":"string"},"code":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{4}$"},
        "short":{"type":"string","maxLength":200},"age":{"type":"integer","minimum":0,"maximum":150},
        "tags":{"type":"array","items":{"type":"string"}},
        "child":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}})";

// Where the mask is wanted: what has been written so far.
constexpr const char* kPlaces[] = {"", R"({"name":"a)", R"({"name":"a","code":")",
                                   R"({"name":"a","short":")",
                                   R"({"name":"a","tags":["b"],"child":{"name":"c)"};

class Words final : public TextModel {
 public:
  explicit Words(size_t vocab) {
    std::set<std::string> seen;
    auto add = [&](const std::string& token) {
      if (seen.insert(token).second) tokens_.push_back(token);
    };
    for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
    for (const char* piece :
         {"\":", "\": \"", "\",", "\", \"", "\"}", "{\"", "\"}]", "},", "\n  "}) {
      add(piece);
    }
    // Three quarters begin with a space, as words in a text do; syllables make them share heads.
    std::mt19937 random(1);
    while (tokens_.size() < vocab) {
      std::string word = random() % 4 == 0 ? "" : " ";
      for (auto n = 1 + random() % 4; n-- > 0;) {
        word += "bcdfghklmnprstvwz"[random() % 17];
        word += "aeiou"[random() % 5];
        if (random() % 3 == 0) word += "nrslt"[random() % 5];
      }
      add(word);
    }
  }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(tokens_.size()); }
  std::vector<uint32_t> encode(std::string_view, bool) const override { return {}; }
  std::string decode(std::span<const uint32_t>) const override { return {}; }
  std::string_view token_bytes(uint32_t token) const override { return tokens_[token]; }
  std::string_view token_name(uint32_t token) const override { return tokens_[token]; }
  const std::vector<uint32_t>& end_tokens() const override { return ends_; }
  const std::string& chat_problem() const override { return tokens_[0]; }
  ToolFormat tool_format() const override { return ToolFormat::none; }
  tl::expected<ChatPrompt, std::string> chat_prompt(const Chat&, bool) const override {
    return tl::unexpected(std::string("no chats"));
  }

 private:
  std::vector<std::string> tokens_;
  std::vector<uint32_t> ends_;
};

std::shared_ptr<const TokenTrie> trie_of(int64_t vocab) {
  const Words words(static_cast<size_t>(vocab));
  return std::make_shared<const TokenTrie>(words, words.vocab_size());
}

Program program_of(const TokenTrie& trie) {
  const Json schema = Json::parse(kSchema);
  ProgramBuilder builder;
  JsonText text(builder);
  SchemaCompiler compiler(builder, text, schema);
  return *builder.finish(builder.call(compiler.compile(schema, {}), builder.accept()),
                         trie.single_bytes());
}

void compile(benchmark::State& state) {
  const auto trie = trie_of(1000);
  for (auto _ : state) benchmark::DoNotOptimize(program_of(*trie));
}

void vocabulary(benchmark::State& state) {
  const Words words(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(TokenTrie(words, words.vocab_size()));
}

// In a grammar that nothing is known of but the text so far.
void mask_first(benchmark::State& state) {
  const auto trie = trie_of(state.range(0));
  const Program program = program_of(*trie);
  uint32_t count = 0;
  for (auto _ : state) {
    state.PauseTiming();
    Matcher matcher(std::make_shared<const Grammar>(program, trie));
    matcher.accept(kPlaces[state.range(1)]);
    state.ResumeTiming();
    count = matcher.allowed()->count;
  }
  state.counters["allowed"] = count;
}

void mask_again(benchmark::State& state) {
  const auto trie = trie_of(state.range(0));
  Matcher matcher(std::make_shared<const Grammar>(program_of(*trie), trie));
  matcher.accept(kPlaces[state.range(1)]);
  for (auto _ : state) benchmark::DoNotOptimize(matcher.allowed());
}

// The next character of a string of bounded length: another state, its automaton mostly known.
void mask_next(benchmark::State& state) {
  const auto trie = trie_of(state.range(0));
  const Program program = program_of(*trie);
  auto grammar = std::make_shared<const Grammar>(program, trie);
  Matcher matcher(grammar);
  int steps = 0;
  for (auto _ : state) {
    if (steps++ % 180 == 0) {
      state.PauseTiming();
      grammar = std::make_shared<const Grammar>(program, trie);
      matcher = Matcher(grammar);
      matcher.accept(kPlaces[3]);
      state.ResumeTiming();
    }
    benchmark::DoNotOptimize(matcher.allowed());
    matcher.accept("a");
  }
}

void places(benchmark::internal::Benchmark* b) {
  b->ArgNames({"vocab", "place"})->ArgsProduct({{49152, 128256}, {0, 1, 2, 3, 4}});
}

BENCHMARK(compile)->Unit(benchmark::kMicrosecond);
BENCHMARK(vocabulary)->ArgName("vocab")->Arg(49152)->Arg(128256)->Unit(benchmark::kMillisecond);
BENCHMARK(mask_first)->Apply(places)->Unit(benchmark::kMicrosecond);
BENCHMARK(mask_next)->ArgName("vocab")->Arg(49152)->Arg(128256)->Unit(benchmark::kMicrosecond);
BENCHMARK(mask_again)->Apply(places);

}  // namespace
}  // namespace flexllm::server::grammar
