#include "tokenizer/bpe.h"

#include <algorithm>
#include <functional>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {

using formats::TokenType;

// The symbols of one pre-token while they are being joined; storage is kept from one to the next.
class BpeModel::Merger {
 public:
  explicit Merger(const MergeTable& merges) : merges_(merges) {}

  void clear() {
    symbols_.clear();
    queue_.clear();
  }
  void add(uint32_t id) {
    const auto index = static_cast<uint32_t>(symbols_.size());
    symbols_.push_back({id, index - 1, index + 1});
  }

  void merge_all(std::vector<uint32_t>& ids) {
    if (symbols_.empty()) return;
    symbols_.front().previous = kNone;
    symbols_.back().next = kNone;
    for (uint32_t i = 0; i + 1 < symbols_.size(); ++i) propose(i);
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      const Candidate candidate = queue_.back();
      queue_.pop_back();
      apply(candidate);
    }
    for (uint32_t i = 0; i != kNone; i = symbols_[i].next) ids.push_back(symbols_[i].id);
  }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Symbol {
    uint32_t id;  // kNone once it was joined to the one before
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t rank;
    uint32_t left;  // index of the left symbol: of equal ranks the leftmost comes first
    uint32_t left_id;
    uint32_t right_id;
    uint32_t joined_id;
    auto operator<=>(const Candidate&) const = default;
  };

  // Queues the pair that starts at `left`, if it merges. Returns whether it did.
  bool propose(uint32_t left) {
    const Symbol& symbol = symbols_[left];
    if (symbol.next == kNone) return false;
    const uint32_t right_id = symbols_[symbol.next].id;
    const Merge* merge = merges_.find(symbol.id, right_id);
    if (merge == nullptr) return false;
    queue_.push_back({merge->rank, left, symbol.id, right_id, merge->id});
    return true;
  }

  void propose_in_order(uint32_t left) {
    if (propose(left)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }

  void apply(const Candidate& candidate) {
    Symbol& left = symbols_[candidate.left];
    if (left.id != candidate.left_id || left.next == kNone ||
        symbols_[left.next].id != candidate.right_id) {
      return;  // one of the two has been joined to another since
    }
    Symbol& right = symbols_[left.next];
    left.id = candidate.joined_id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) symbols_[left.next].previous = candidate.left;
    if (left.previous != kNone) propose_in_order(left.previous);
    propose_in_order(candidate.left);
  }

  const MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
};

BpeModel::BpeModel(const formats::TokenizerSource& source, const std::vector<Token>& vocabulary,
                   Rules rules)
    : rules_(std::move(rules)), byte_level_(source.byte_level), merges_(source.merges.size()) {
  keys_.reserve(source.tokens.size());
  for (uint32_t id = 0; id < source.tokens.size(); ++id) {
    const Token& token = vocabulary[id];
    if (byte_level_ && token.type != TokenType::byte) {
      keys_.push_back(token.bytes);
    } else {
      keys_.push_back(source.tokens[id]);
    }
  }
  for (uint32_t id = 0; id < keys_.size(); ++id) {
    const Token& token = vocabulary[id];
    if (token.type == TokenType::byte || (byte_level_ && token.bytes.size() == 1)) {
      auto& slot = byte_ids_[static_cast<uint8_t>(token.bytes[0])];
      if (!slot && !token.special) slot = id;
    }
    if (!token.special && token.type != TokenType::unused && !keys_[id].empty()) {
      ids_.emplace(keys_[id], id);
    }
  }
  all_bytes_ = source.byte_fallback &&
               std::all_of(byte_ids_.begin(), byte_ids_.end(), [](const auto& id) { return !!id; });
  for (uint32_t rank = 0; rank < source.merges.size(); ++rank) {
    add_merge(rank, source.merges[rank]);
  }
  if (rules_.ignore_merges) {
    direct_ = ids_;
    return;
  }
  // Most words of a text are tokens. Those that the merges lead to are known here for good, so that
  // they need not be merged each time.
  Merger merger(merges_);
  std::vector<uint32_t> result;
  for (const auto& [key, id] : ids_) {
    result.clear();
    encode_by_merges(key, merger, result);
    if (result.size() == 1 && result[0] == id) direct_.emplace(key, id);
  }
}

void BpeModel::add_merge(uint32_t rank, std::string_view rule) {
  // "left right". Should a token contain a space itself, the cut that gives two tokens counts.
  std::string left;
  std::string joined;
  for (size_t space = rule.find(' '); space != std::string_view::npos;
       space = rule.find(' ', space + 1)) {
    const auto key_of = [&](std::string_view part) {
      return byte_level_ ? bytes_of_printable(part).value_or(std::string(part)) : std::string(part);
    };
    left = key_of(rule.substr(0, space));
    const std::string right = key_of(rule.substr(space + 1));
    joined = left + right;
    const auto left_id = ids_.find(left);
    const auto right_id = ids_.find(right);
    const auto joined_id = ids_.find(joined);
    if (left_id != ids_.end() && right_id != ids_.end() && joined_id != ids_.end()) {
      merges_.add(left_id->second, right_id->second, {rank, joined_id->second});
      return;
    }
  }
  throw Error("merge rule " + std::to_string(rank) + " '" + std::string(rule) +
              "' joins tokens that the vocabulary does not have");
}

void BpeModel::append_symbols(std::string_view piece, Merger& merger) const {
  bool after_unknown = false;
  const auto add_unknown = [&] {
    if (rules_.unknown && !(after_unknown && rules_.fuse_unknown)) merger.add(*rules_.unknown);
    after_unknown = true;
  };
  const auto add = [&](uint32_t id) {
    merger.add(id);
    after_unknown = false;
  };
  if (byte_level_) {
    for (const char c : piece) {
      const auto& id = byte_ids_[static_cast<uint8_t>(c)];
      id ? add(*id) : add_unknown();
    }
    return;
  }
  for (size_t position = 0; position < piece.size();) {
    const std::string_view character =
        piece.substr(position, next_unit(piece.substr(position)).length);
    position += character.size();
    if (const auto found = ids_.find(character); found != ids_.end()) {
      add(found->second);
    } else if (all_bytes_) {
      for (const char c : character) add(*byte_ids_[static_cast<uint8_t>(c)]);
    } else {
      add_unknown();
    }
  }
}

void BpeModel::encode_by_merges(std::string_view piece, Merger& merger,
                                std::vector<uint32_t>& ids) const {
  merger.clear();
  append_symbols(piece, merger);
  merger.merge_all(ids);
}

void BpeModel::encode(std::string_view text, bool at_text_start, std::vector<uint32_t>& ids) const {
  std::string normalized;
  if (!rules_.normalizer.empty()) {
    normalized = rules_.normalizer.apply(text, at_text_start);
    text = normalized;
  }
  Merger merger(merges_);
  for (const std::string_view piece : rules_.pre_tokenizer.split(text)) {
    if (const auto found = direct_.find(piece); found != direct_.end()) {
      ids.push_back(found->second);
    } else {
      encode_by_merges(piece, merger, ids);
    }
  }
}

}  // namespace flexllm::tokenizer
