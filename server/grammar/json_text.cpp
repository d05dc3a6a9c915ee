#include "server/grammar/json_text.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "server/grammar/numbers.h"

namespace flexllm::server::grammar {
namespace {

constexpr uint32_t kMaxIndent = 20;

ByteSet range(uint32_t low, uint32_t high) {
  ByteSet set;
  for (uint32_t b = low; b <= high; ++b) set.set(b);
  return set;
}

ByteSet of(std::string_view bytes) {
  ByteSet set;
  for (const char c : bytes) set.set(static_cast<uint8_t>(c));
  return set;
}

// A run of byte ranges that encodes a range of code points: E0 A0..BF 80..BF.
using Encoding = std::vector<std::pair<uint8_t, uint8_t>>;

std::vector<uint8_t> encode(char32_t c) {
  const auto tail = [c](int shift) { return static_cast<uint8_t>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<uint8_t>(c)};
  if (c < 0x800) return {static_cast<uint8_t>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<uint8_t>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<uint8_t>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

// Cuts [low, high] where the length of the encoding changes or where a trailing byte would not run
// over its whole range.
void encodings(char32_t low, char32_t high, std::vector<Encoding>& out) {
  for (const char32_t last : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
    if (low <= last && last < high) {
      encodings(low, last, out);
      encodings(last + 1, high, out);
      return;
    }
  }
  for (const int bits : {6, 12, 18}) {
    const char32_t mask = (char32_t{1} << bits) - 1;
    if (low < 0x80 || (low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      encodings(low, low | mask, out);
      encodings((low | mask) + 1, high, out);
      return;
    }
    if ((high & mask) != mask) {
      encodings(low, (high & ~mask) - 1, out);
      encodings(high & ~mask, high, out);
      return;
    }
  }
  const auto first = encode(low);
  const auto last = encode(high);
  Encoding encoding;
  for (size_t i = 0; i < first.size(); ++i) encoding.emplace_back(first[i], last[i]);
  out.push_back(std::move(encoding));
}

}  // namespace

Address JsonText::space(Address next) {
  const auto [entry, fresh] = spaces_.emplace(next, 0);
  if (fresh) {
    const Address indent = builder_.bytes(of(" \t"), builder_.ret());
    entry->second =
        builder_.split({next, builder_.byte(' ', next),
                        builder_.byte('\n', builder_.repeat(indent, 0, kMaxIndent, next))});
  }
  return entry->second;
}

Address JsonText::utf8(const CharSet& set, Address next) {
  std::vector<Encoding> list;
  for (const auto& part : set.ranges()) encodings(part.low, part.high, list);
  // Encodings with the same tail share it.
  std::map<Encoding, ByteSet> heads;
  std::vector<Address> targets;
  for (const auto& encoding : list) {
    heads[Encoding(encoding.begin() + 1, encoding.end())] |=
        range(encoding[0].first, encoding[0].second);
  }
  for (const auto& [tail, head] : heads) {
    Address at = next;
    for (size_t i = tail.size(); i-- > 0;) {
      at = builder_.bytes(range(tail[i].first, tail[i].second), at);
    }
    targets.push_back(builder_.bytes(head, at));
  }
  return builder_.split(std::move(targets));
}

Address JsonText::edge(const CharSet& set, Escapes escapes, Address next) {
  if (escapes == Escapes::none) return utf8(set, next);
  const CharSet special{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  std::vector<Address> targets;
  const CharSet itself = set.intersection(special.complement());
  if (!itself.empty()) targets.push_back(utf8(itself, next));
  std::string shorts;
  constexpr std::string_view kFrom = "\"\\\b\f\n\r\t";
  constexpr std::string_view kTo = "\"\\bfnrt";
  for (size_t i = 0; i < kFrom.size(); ++i) {
    if (set.contains(static_cast<char32_t>(kFrom[i]))) shorts += kTo[i];
  }
  std::vector<Address> escaped;
  if (!shorts.empty()) escaped.push_back(builder_.bytes(of(shorts), next));
  for (const char32_t high : {char32_t{0}, char32_t{16}}) {
    std::string digits;
    for (char32_t low = 0; low < 16; ++low) {
      if (!set.contains(high + low)) continue;
      digits += "0123456789abcdef"[low];
      digits += "0123456789ABCDEF"[low];
    }
    if (digits.empty()) continue;
    escaped.push_back(
        builder_.literal(high == 0 ? "u000" : "u001", builder_.bytes(of(digits), next)));
  }
  if (!escaped.empty()) {
    targets.push_back(builder_.byte('\\', builder_.split(std::move(escaped))));
  }
  return builder_.split(std::move(targets));
}

Address JsonText::chars(const CharDfa& dfa, Escapes escapes, Address next) {
  if (dfa.accepts_nothing()) return builder_.nothing();
  std::vector<Address> entries;
  for (size_t i = 0; i < dfa.states.size(); ++i) entries.push_back(builder_.reserve());
  for (size_t i = 0; i < dfa.states.size(); ++i) {
    const auto& state = dfa.states[i];
    std::vector<Address> targets;
    if (state.accepts) targets.push_back(next);
    for (const auto& [set, to] : state.edges) targets.push_back(edge(set, escapes, entries[to]));
    builder_.define(entries[i], builder_.split(std::move(targets)));
  }
  return entries[0];
}

Address JsonText::string(const CharDfa& dfa, Address next) {
  return builder_.byte('"', chars(dfa, Escapes::needed, builder_.byte('"', next)));
}

Address JsonText::plain(const CharDfa& dfa, Address next) {
  return chars(dfa, Escapes::none, next);
}

Address JsonText::any_character() {
  if (character_ != 0) return character_;
  const Address ret = builder_.ret();
  const CharSet special{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  const ByteSet hex = range('0', '9') | range('a', 'f') | range('A', 'F');
  const Address two = builder_.bytes(hex, builder_.bytes(hex, ret));
  const Address three = builder_.bytes(hex, two);
  const ByteSet d = of("dD");
  const ByteSet low_half = range('8', '9') | range('a', 'b') | range('A', 'B');
  const ByteSet high_half = range('c', 'f') | range('C', 'F');
  // A code unit that is no surrogate, or a pair of them.
  const Address second = builder_.literal("\\u", builder_.bytes(d, builder_.bytes(high_half, two)));
  const Address unit = builder_.split(
      {builder_.bytes(hex & ~d, three), builder_.bytes(d, builder_.bytes(range('0', '7'), two)),
       builder_.bytes(d,
                      builder_.bytes(low_half, builder_.bytes(hex, builder_.bytes(hex, second))))});
  const Address escaped =
      builder_.split({builder_.bytes(of("\"\\/bfnrt"), ret), builder_.byte('u', unit)});
  character_ = builder_.split({utf8(special.complement(), ret), builder_.byte('\\', escaped)});
  return character_;
}

Address JsonText::string(uint32_t min, uint32_t max, Address next) {
  return builder_.byte('"', builder_.repeat(any_character(), min, max, builder_.byte('"', next)));
}

Address JsonText::value() {
  if (value_ != 0) return value_;
  value_ = builder_.reserve();
  const Address ret = builder_.ret();
  builder_.define(value_,
                  builder_.split({object(), list(), string(0, kUnbounded, ret),
                                  plain(any_number(effort_), ret), builder_.literal("true", ret),
                                  builder_.literal("false", ret), builder_.literal("null", ret)}));
  return value_;
}

Address JsonText::object() {
  if (object_ != 0) return object_;
  object_ = builder_.reserve();
  const Address close = builder_.byte('}', builder_.ret());
  const Address after = builder_.reserve();
  const Address member =
      string(0, kUnbounded, space(builder_.byte(':', space(builder_.call(value(), space(after))))));
  builder_.define(after, builder_.split({close, builder_.byte(',', space(member))}));
  builder_.define(object_, builder_.byte('{', space(builder_.split({close, member}))));
  return object_;
}

Address JsonText::list() {
  if (list_ != 0) return list_;
  list_ = builder_.reserve();
  const Address close = builder_.byte(']', builder_.ret());
  const Address after = builder_.reserve();
  const Address item = builder_.call(value(), space(after));
  builder_.define(after, builder_.split({close, builder_.byte(',', space(item))}));
  builder_.define(list_, builder_.byte('[', space(builder_.split({close, item}))));
  return list_;
}

}  // namespace flexllm::server::grammar
