#include "server/grammar/char_set.h"

#include <algorithm>

namespace flexllm::server::grammar {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr CharRange kSurrogates{0xD800, 0xDFFF};

}  // namespace

CharSet::CharSet(std::initializer_list<CharRange> ranges) : ranges_(ranges) { normalise(); }

CharSet CharSet::all() { return {{0, kLast}}; }

void CharSet::add(CharRange range) {
  ranges_.push_back(range);
  normalise();
}

void CharSet::add(const CharSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalise();
}

void CharSet::normalise() {
  std::vector<CharRange> parts;
  for (const auto& range : ranges_) {
    if (range.low < kSurrogates.low) {
      parts.push_back({range.low, std::min(range.high, char32_t{kSurrogates.low - 1})});
    }
    if (range.high > kSurrogates.high) {
      parts.push_back({std::max(range.low, char32_t{kSurrogates.high + 1}), range.high});
    }
  }
  std::sort(parts.begin(), parts.end());
  ranges_.clear();
  for (const auto& part : parts) {
    if (!ranges_.empty() && part.low <= ranges_.back().high + 1) {
      ranges_.back().high = std::max(ranges_.back().high, part.high);
    } else {
      ranges_.push_back(part);
    }
  }
}

CharSet CharSet::complement() const {
  CharSet out;
  char32_t next = 0;
  for (const auto& range : ranges_) {
    if (range.low > next) out.ranges_.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kLast) out.ranges_.push_back({next, kLast});
  out.normalise();
  return out;
}

CharSet CharSet::intersection(const CharSet& other) const {
  CharSet out;
  auto a = ranges_.begin();
  auto b = other.ranges_.begin();
  while (a != ranges_.end() && b != other.ranges_.end()) {
    const char32_t low = std::max(a->low, b->low);
    const char32_t high = std::min(a->high, b->high);
    if (low <= high) out.ranges_.push_back({low, high});
    ++(a->high < b->high ? a : b);
  }
  return out;
}

bool CharSet::contains(char32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [c](const CharRange& r) { return r.low <= c && c <= r.high; });
}

}  // namespace flexllm::server::grammar
