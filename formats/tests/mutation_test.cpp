// Files that nobody vouches for: thousands of cut, flipped, inflated and spliced variants of good
// ones. Each either opens or gives an Error, and costs memory only in proportion to its size: this
// program counts every allocation. Run it under the sanitizers too.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/error.h"
#include "formats/safetensors.h"
#include "formats/tests/tiny_model.h"

namespace {

std::atomic<size_t> live{0};
std::atomic<size_t> peak{0};

void* counted(size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  const size_t now = live += malloc_usable_size(memory);
  if (now > peak) peak = now;
  return memory;
}

void release(void* memory) noexcept {
  if (memory != nullptr) live -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return counted(size); }
void* operator new[](size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }

namespace flexllm::formats::testing {
namespace {

constexpr size_t kFixedMemory = 256 << 10;
constexpr size_t kMemoryPerByte = 48;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  // A damaged copy; `head` is the part whose bytes have meaning and are hit most.
  std::string binary(std::string bytes, size_t head) {
    const size_t at = position(below(5) == 0 ? bytes.size() : head);
    switch (below(6)) {
      case 0:
        return bytes.substr(0, at);
      case 1:
        for (size_t i = 0; i <= below(4); ++i) bytes[position(head)] = byte();
        return bytes;
      case 2:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        return bytes;
      case 3:
        return overwrite(std::move(bytes), at, bytes_of(number()));
      case 4:
        return overwrite(std::move(bytes), at, bytes_of(static_cast<uint32_t>(number())));
      default:
        return splice(std::move(bytes), at);
    }
  }

  std::string text(std::string json) {
    const size_t at = position(json.size());
    switch (below(6)) {
      case 0:
        return json.substr(0, at);
      case 1:
        json[at] = byte();
        return json;
      case 2:
        return json.insert(at, std::string(below(4) == 0 ? 5000 : 1, R"({}[]",:0-9\n)"[below(12)]));
      case 3:
        return replace_number(std::move(json), at);
      case 4:
        return replace_value(std::move(json), at);
      default:
        return splice(std::move(json), at);
    }
  }

  size_t below(size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(random_);
  }

 private:
  size_t position(size_t size) { return below(std::max<size_t>(size, 1)); }
  char byte() { return static_cast<char>(below(256)); }

  uint64_t number() {
    static constexpr uint64_t kNasty[] = {0,
                                          1,
                                          2,
                                          7,
                                          8,
                                          255,
                                          1 << 16,
                                          1 << 20,
                                          1u << 31,
                                          0xFFFFFFFFu,
                                          uint64_t{1} << 32,
                                          uint64_t{1} << 48,
                                          uint64_t{1} << 61,
                                          uint64_t{1} << 63,
                                          ~uint64_t{0},
                                          ~uint64_t{0} - 31};
    return kNasty[below(std::size(kNasty))];
  }

  static std::string overwrite(std::string bytes, size_t at, const std::string& with) {
    const size_t size = std::min(with.size(), bytes.size() - at);
    return bytes.replace(at, size, with.substr(0, size));
  }

  std::string splice(std::string bytes, size_t at) {
    const size_t size = std::min<size_t>(below(64), bytes.size() - at);
    if (below(2) == 0) return bytes.erase(at, size);
    return bytes.insert(position(bytes.size()), bytes.substr(at, size));
  }

  std::string replace_number(std::string json, size_t at) {
    const size_t begin = json.find_first_of("0123456789", at);
    if (begin == std::string::npos) return json;
    const size_t end = json.find_first_not_of("0123456789", begin);
    static constexpr const char* kNasty[] = {"0",          "-1",   "1e308", "-0.5",
                                             "4294967295", "null", "\"\""};
    const std::string with =
        below(2) == 0 ? kNasty[below(std::size(kNasty))] : std::to_string(number());
    return json.replace(begin, end - begin, with);
  }

  std::string replace_value(std::string json, size_t at) {
    const size_t begin = json.find(": ", at);
    if (begin == std::string::npos) return json;
    const size_t end = json.find_first_of(",}\n", begin);
    static constexpr const char* kOther[] = {"null", "{}", "[]", "\"x\"", "true", "[[[[]]]]", "7"};
    return json.replace(begin + 2, end - begin - 2, kOther[below(std::size(kOther))]);
  }

  std::mt19937 random_;
};

struct Tally {
  int opened = 0;
  int refused = 0;
};

// Runs `open` and holds its memory against what `size` bytes of files justify.
void attempt(size_t size, const std::function<void()>& open, Tally& tally) {
  const size_t before = live;
  peak = before;
  try {
    open();
    ++tally.opened;
  } catch (const Error& error) {
    ++tally.refused;
    ASSERT_GT(std::string_view(error.what()).size(), 20u) << "a message says file, place, reason";
  }
  ASSERT_LE(peak - before, kFixedMemory + kMemoryPerByte * size) << "of memory at the peak";
}

void open_and_read(const std::filesystem::path& path) {
  const auto checkpoint = open_checkpoint(path);
  for (const TensorInfo& tensor : checkpoint->tensors()) checkpoint->read_f32(tensor.name);
}

TEST(Mutation, OfGguf) {
  const TemporaryFolder folder;
  const GgufBuilder builder = tiny_gguf(8);
  GgufBuilder head_only = builder;
  for (auto& tensor : head_only.tensors) tensor.data.clear();
  const std::string whole = builder.build();
  const size_t head = head_only.build().size();
  Mutator mutator(1);
  Tally tally;
  for (int i = 0; i < 8000; ++i) {
    SCOPED_TRACE(i);
    const std::string bytes = mutator.binary(whole, head);
    const auto path = folder.write("m.gguf", bytes);
    ASSERT_NO_FATAL_FAILURE(attempt(
        bytes.size(), [&] { open_and_read(path); }, tally));
  }
  EXPECT_GT(tally.opened, 100);
  EXPECT_GT(tally.refused, 1000);
}

TEST(Mutation, OfGgufAtEveryCutOfTheHead) {
  const TemporaryFolder folder;
  const std::string whole = tiny_gguf(8).build();
  Tally tally;
  for (size_t size = 0; size < 4096; ++size) {
    const auto path = folder.write("m.gguf", whole.substr(0, size));
    ASSERT_NO_FATAL_FAILURE(attempt(
        size, [&] { open_and_read(path); }, tally));
  }
  EXPECT_EQ(tally.opened, 0);
}

TEST(Mutation, OfSafetensors) {
  const TemporaryFolder folder;
  const std::string whole = tiny_folder("F32").at("model.safetensors");
  uint64_t head = 0;
  std::memcpy(&head, whole.data(), sizeof head);
  Mutator mutator(2);
  Tally tally;
  for (int i = 0; i < 8000; ++i) {
    SCOPED_TRACE(i);
    std::string bytes;
    if (i % 2 == 0) {
      bytes = mutator.binary(whole, head + 8);
    } else {  // a damaged header of the right length
      const std::string header = mutator.text(whole.substr(8, head));
      bytes = bytes_of(uint64_t{header.size()}) + header + whole.substr(8 + head);
    }
    const auto path = folder.write("m.safetensors", bytes);
    ASSERT_NO_FATAL_FAILURE(attempt(
        bytes.size(), [&] { SafetensorsFile file(path); }, tally));
  }
  EXPECT_GT(tally.opened, 100);
  EXPECT_GT(tally.refused, 1000);
}

TEST(Mutation, OfHuggingFaceFolders) {
  const TemporaryFolder folder;
  Files files = tiny_folder();
  files["tokenizer.json"] += '\n';
  size_t size = 0;
  for (const auto& [name, content] : files) {
    folder.write(name, content);
    size += content.size();
  }
  Mutator mutator(3);
  for (const std::string name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}) {
    Tally tally;
    for (int i = 0; i < 2500; ++i) {
      SCOPED_TRACE(name + ", " + std::to_string(i));
      const std::string content = mutator.text(files.at(name));
      folder.write(name, content);
      ASSERT_NO_FATAL_FAILURE(attempt(
          size + content.size(), [&] { open_and_read(folder.path()); }, tally));
    }
    folder.write(name, files.at(name));
    EXPECT_GT(tally.opened, 20) << name;
    EXPECT_GT(tally.refused, 200) << name;
  }
}

// Structures that cost most for each byte of the file.
TEST(Mutation, OfDenseJson) {
  const TemporaryFolder folder;
  for (const auto& [name, content] : tiny_folder()) folder.write(name, content);
  const auto repeat = [](const std::string& piece, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += piece;
    return all;
  };
  Tally tally;
  for (const std::string& content :
       {std::string("[") + repeat("[],", 50000) + "[]]",
        std::string("[") + repeat("{},", 50000) + "{}]",
        std::string("[") + repeat("1,", 50000) + "1]",
        "{\"model\":{\"merges\":[" + repeat("\"\",", 50000) + "\"\"],\"vocab\":{}}}",
        repeat("[", 50000), repeat("{\"a\":", 50000)}) {
    folder.write("tokenizer.json", content);
    ASSERT_NO_FATAL_FAILURE(attempt(
        content.size(), [&] { open_and_read(folder.path()); }, tally));
  }
}

}  // namespace
}  // namespace flexllm::formats::testing
