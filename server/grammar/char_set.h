// A set of Unicode code points as ascending ranges. Plain values.
#pragma once

#include <cstdint>
#include <vector>

namespace flexllm::server::grammar {

struct CharRange {
  char32_t low = 0;
  char32_t high = 0;  // inclusive
  auto operator<=>(const CharRange&) const = default;
};

// Surrogates are no characters: no set holds them.
class CharSet {
 public:
  CharSet() = default;
  CharSet(std::initializer_list<CharRange> ranges);
  static CharSet all();

  void add(CharRange range);
  void add(const CharSet& other);
  CharSet complement() const;
  CharSet intersection(const CharSet& other) const;

  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t c) const;
  const std::vector<CharRange>& ranges() const { return ranges_; }
  auto operator<=>(const CharSet&) const = default;

 private:
  void normalise();
  std::vector<CharRange> ranges_;  // ascending, neither touching nor overlapping
};

}  // namespace flexllm::server::grammar
