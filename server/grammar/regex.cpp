#include "server/grammar/regex.h"

#include <memory>
#include <string>

#include "tokenizer/utf8.h"

namespace flexllm::server::grammar {
namespace {

constexpr uint32_t kUnbounded = ~0u;
constexpr uint32_t kMaxRepeat = 1000;
constexpr size_t kMaxNfaStates = 20000;
constexpr size_t kMaxGroups = 64;  // nested
constexpr size_t kMaxPattern = 4096;

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Node {
  enum class Kind { set, sequence, choice, repeat, begin, end };
  Kind kind = Kind::sequence;
  CharSet set;
  std::vector<NodePtr> children;
  uint32_t min = 0;  // of a repetition
  uint32_t max = 0;
};

NodePtr make(Node::Kind kind) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  return node;
}

const CharSet kDigits{{'0', '9'}};
const CharSet kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharSet kSpace{{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                     {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                     {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CharSet kLineEnds{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class Parser {
 public:
  explicit Parser(std::string_view pattern) {
    if (pattern.size() > kMaxPattern) refuse("is longer than 4096 bytes.");
    for (size_t at = 0; at < pattern.size();) {
      text_ += tokenizer::read_code_point(pattern, at);
    }
  }

  NodePtr parse() {
    NodePtr node = choice();
    if (at_ < text_.size()) refuse("has a ')' without its '('.");
    return node;
  }

 private:
  bool done() const { return at_ == text_.size(); }
  char32_t peek() const { return done() ? 0 : text_[at_]; }
  bool take(char32_t c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::u32string_view s) {
    if (!std::u32string_view(text_).substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  char32_t next() {
    if (done()) refuse("ends too early.");
    return text_[at_++];
  }

  NodePtr choice() {
    NodePtr node = make(Node::Kind::choice);
    do {
      node->children.push_back(sequence());
    } while (take(U'|'));
    return node;
  }

  NodePtr sequence() {
    NodePtr node = make(Node::Kind::sequence);
    while (!done() && peek() != '|' && peek() != ')') node->children.push_back(repeated());
    return node;
  }

  NodePtr repeated() {
    NodePtr node = atom();
    uint32_t min = 0;
    uint32_t max = kUnbounded;
    if (take(U'*')) {
    } else if (take(U'+')) {
      min = 1;
    } else if (take(U'?')) {
      max = 1;
    } else if (peek() == '{') {
      bounds(min, max);
    } else {
      return node;
    }
    take(U'?');  // how much is taken first does not change what matches
    if (!done() && (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{')) {
      refuse("repeats a repetition.");
    }
    if (node->kind == Node::Kind::begin || node->kind == Node::Kind::end) {
      refuse("repeats an anchor.");
    }
    NodePtr repeat = make(Node::Kind::repeat);
    repeat->min = min;
    repeat->max = max;
    repeat->children.push_back(std::move(node));
    return repeat;
  }

  void bounds(uint32_t& min, uint32_t& max) {
    take(U'{');
    min = count();
    max = min;
    if (take(U',')) max = peek() == '}' ? kUnbounded : count();
    if (!take(U'}')) refuse("has a '{' that begins no repetition; write '\\{'.");
    if (max < min) refuse("has a repetition whose bounds are in the wrong order.");
  }

  uint32_t count() {
    if (done() || !kDigits.contains(peek())) {
      refuse("has a '{' that begins no repetition; write '\\{'.");
    }
    uint32_t value = 0;
    while (!done() && kDigits.contains(peek())) {
      value = value * 10 + static_cast<uint32_t>(next() - '0');
      if (value > kMaxRepeat) refuse("repeats more than 1000 times.");
    }
    return value;
  }

  NodePtr of(CharSet set) {
    NodePtr node = make(Node::Kind::set);
    node->set = std::move(set);
    return node;
  }

  NodePtr atom() {
    const char32_t c = next();
    switch (c) {
      case '^':
        return make(Node::Kind::begin);
      case '$':
        return make(Node::Kind::end);
      case '.':
        return of(kLineEnds.complement());
      case '[':
        return of(bracket());
      case '(':
        return group();
      case '\\':
        if (peek() == 'b' || peek() == 'B') refuse("uses \\b, which is not supported.");
        return of(escape());
      case '*':
      case '+':
      case '?':
        refuse("repeats nothing.");
      case '{':
      case '}':
      case ']':
        refuse("has a bracket that stands for itself; escape it.");
      default:
        return of({{c, c}});
    }
  }

  NodePtr group() {
    if (take(U"?:")) {
    } else if (take(U"?=") || take(U"?!") || take(U"?<=") || take(U"?<!")) {
      refuse("looks around, which is not supported.");
    } else if (take(U"?<")) {
      while (next() != '>') {
      }
    } else if (take(U'?')) {
      refuse("has a kind of group that is not supported.");
    }
    if (++depth_ > kMaxGroups) refuse("nests too deeply.");
    NodePtr node = choice();
    --depth_;
    if (!take(U')')) refuse("has a '(' without its ')'.");
    return node;
  }

  CharSet bracket() {
    const bool negated = take(U'^');
    CharSet set;
    while (!take(U']')) {
      const CharSet low = member();
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        take(U'-');
        const CharSet high = member();
        const auto single = [](const CharSet& s) {
          return s.ranges().size() == 1 && s.ranges()[0].low == s.ranges()[0].high;
        };
        if (!single(low) || !single(high)) refuse("has a range between classes.");
        const CharRange range{low.ranges()[0].low, high.ranges()[0].low};
        if (range.high < range.low) refuse("has a range whose ends are in the wrong order.");
        set.add(range);
      } else {
        set.add(low);
      }
    }
    return negated ? set.complement() : set;
  }

  CharSet member() {
    const char32_t c = next();
    if (c != '\\') return {{c, c}};
    if (take(U'b')) return {{8, 8}};
    return escape();
  }

  CharSet escape() {
    const char32_t c = next();
    auto one = [](char32_t value) { return CharSet{{value, value}}; };
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return kDigits.complement();
      case 'w':
        return kWord;
      case 'W':
        return kWord.complement();
      case 's':
        return kSpace;
      case 'S':
        return kSpace.complement();
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(hex(2));
      case 'u':
        return one(unicode());
      case 'p':
      case 'P':
        refuse("uses \\p, which is not supported.");
      case '0':
        if (!kDigits.contains(peek())) return one(0);
        break;
      default:
        break;
    }
    if (c >= '1' && c <= '9') refuse("refers back to a group, which is not supported.");
    if (c < 128 && kWord.contains(c)) refuse("has an escape that is not known.");
    return one(c);
  }

  char32_t hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char32_t c = next();
      const bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!letter && !kDigits.contains(c)) refuse("has an escape without its digits.");
      value = value * 16 + (letter ? (c | 32) - 'a' + 10 : c - '0');
    }
    return value;
  }

  char32_t unicode() {
    const char32_t first = hex(4);
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first < 0xDC00 && take(U"\\u")) {
      const char32_t second = hex(4);
      if (second >= 0xDC00 && second <= 0xDFFF) {
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
      }
    }
    refuse("has half of a surrogate pair.");
  }

  std::u32string text_;
  size_t at_ = 0;
  size_t depth_ = 0;
};

// Anchors are moved to the ends of the alternatives of the whole pattern, which is where they can
// be told from the rest; "^(?:...)$" and "(^a$)|b" are of that kind.
void alternatives(NodePtr node, std::vector<NodePtr>& out) {
  for (auto& child : node->children) {
    if (child->children.size() == 1 && child->children[0]->kind == Node::Kind::choice) {
      alternatives(std::move(child->children[0]), out);
    } else {
      out.push_back(std::move(child));
    }
  }
}

class Builder {
 public:
  CharDfa build(NodePtr pattern, Match match, Effort& effort) {
    nfa_.start = state();
    nfa_.accept = state();
    std::vector<NodePtr> list;
    alternatives(std::move(pattern), list);
    for (auto& sequence : list) {
      auto& parts = sequence->children;
      bool begins = match == Match::whole;
      bool ends = match == Match::whole;
      while (!parts.empty() && parts.front()->kind == Node::Kind::begin) {
        begins = true;
        parts.erase(parts.begin());
      }
      while (!parts.empty() && parts.back()->kind == Node::Kind::end) {
        ends = true;
        parts.pop_back();
      }
      const uint32_t first = state();
      silent(nfa_.start, first);
      if (!begins) nfa_.states[first].edges.emplace_back(CharSet::all(), first);
      const uint32_t last = add(*sequence, first);
      if (!ends) {
        const uint32_t rest = state();
        silent(last, rest);
        nfa_.states[rest].edges.emplace_back(CharSet::all(), rest);
        silent(rest, nfa_.accept);
      } else {
        silent(last, nfa_.accept);
      }
    }
    return determinise(nfa_, effort);
  }

 private:
  uint32_t state() {
    if (nfa_.states.size() >= kMaxNfaStates) refuse("is too large a pattern.");
    nfa_.states.emplace_back();
    return static_cast<uint32_t>(nfa_.states.size() - 1);
  }
  void silent(uint32_t from, uint32_t to) { nfa_.states[from].silent.push_back(to); }

  // From `from` through what the node matches; returns where that ends.
  uint32_t add(const Node& node, uint32_t from) {
    switch (node.kind) {
      case Node::Kind::set: {
        const uint32_t to = state();
        if (!node.set.empty()) nfa_.states[from].edges.emplace_back(node.set, to);
        return to;
      }
      case Node::Kind::sequence:
        for (const auto& child : node.children) from = add(*child, from);
        return from;
      case Node::Kind::choice: {
        const uint32_t to = state();
        for (const auto& child : node.children) {
          const uint32_t begin = state();
          silent(from, begin);
          silent(add(*child, begin), to);
        }
        return to;
      }
      case Node::Kind::repeat: {
        for (uint32_t i = 0; i < node.min; ++i) from = add(*node.children[0], from);
        if (node.max == kUnbounded) {
          const uint32_t loop = state();
          silent(from, loop);
          silent(add(*node.children[0], loop), loop);
          const uint32_t to = state();
          silent(loop, to);
          return to;
        }
        const uint32_t to = state();
        silent(from, to);
        for (uint32_t i = node.min; i < node.max; ++i) {
          from = add(*node.children[0], from);
          silent(from, to);
        }
        return to;
      }
      case Node::Kind::begin:
      case Node::Kind::end:
        break;
    }
    refuse("has an anchor inside, which is not supported.");
  }

  CharNfa nfa_;
};

}  // namespace

CharDfa compile_regex(std::string_view pattern, Match match, Effort& effort) {
  return Builder().build(Parser(pattern).parse(), match, effort);
}

}  // namespace flexllm::server::grammar
