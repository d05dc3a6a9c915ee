// Which KV pages hold what. Running sequences own pages through page tables; full pages stay behind
// when a sequence goes, and one that begins with the same tokens takes them over instead of
// computing them (the bits do not depend on who computed a page: docs/numerics.md). Pages that
// nobody uses make room, the least recently used first, by moving to host memory, from where they
// come back when they are asked for. Owned by the thread that owns the backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "server/scheduling/backend.h"

namespace flexllm::server {

class PageCache {
  struct Node;

 public:
  // The page table of one sequence. Its first `shared()` pages are full, known to the cache, and
  // may be used by others too; the rest is its own. Goes back with release().
  class Table {
   public:
    std::span<const host::PageId> pages() const { return pages_; }
    uint32_t shared() const { return shared_; }

   private:
    friend class PageCache;
    std::vector<host::PageId> pages_;
    Node* last_ = nullptr;  // of the last shared page
    uint32_t shared_ = 0;
  };

  struct Options {
    bool reuse = true;      // false: pages are forgotten when their sequence goes
    size_t host_bytes = 0;  // memory for pages that the card has no room for
  };
  struct Counts {
    uint64_t to_host = 0;  // pages moved
    uint64_t from_host = 0;
    uint64_t forgotten = 0;  // pages that made room and were not kept
    size_t host_bytes = 0;   // in use
  };

  PageCache(Backend& backend, Options options);
  ~PageCache();
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  // Takes over known pages of `tokens` after the shared ones until the table shares `limit`; pages
  // of its own that they replace are given back. Returns how many.
  uint32_t extend(Table& table, std::span<const uint32_t> tokens, uint32_t limit);
  // Makes the first `full` pages known, whose positions the card has computed from `tokens`. Where
  // another sequence computed the same page before, the table takes that one.
  void insert(Table& table, std::span<const uint32_t> tokens, uint32_t full);
  // Whether the next page of both would hold the same: both share all before it, and both have the
  // tokens to fill it.
  bool same_next_page(const Table& a, std::span<const uint32_t> a_tokens, const Table& b,
                      std::span<const uint32_t> b_tokens) const;
  // Until the table has `count` pages. False, and nothing has changed: the card is full.
  bool grow(Table& table, uint32_t count);
  enum class Keep { yes, no };
  // The sequence goes. Keep::no: what nobody else uses is forgotten, as its contents are suspect.
  void release(Table& table, Keep keep = Keep::yes);
  // The card has lost all contents. All tables must have been released.
  void clear();

  // Pages that grow() can give: free, or known and unused.
  uint32_t available() const { return backend_.pages().available() + idle_pages_; }
  uint32_t idle_pages() const { return idle_pages_; }
  const Counts& counts() const { return counts_; }

 private:
  struct Key {
    const Node* parent;
    std::vector<uint32_t> tokens;
  };
  struct KeyView {
    const Node* parent;
    std::span<const uint32_t> tokens;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(const KeyView& key) const;
    size_t operator()(const Key& key) const { return (*this)(KeyView{key.parent, key.tokens}); }
  };
  struct Equal {
    using is_transparent = void;
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return a.parent == b.parent &&
             std::equal(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end());
    }
  };
  struct Older {
    bool operator()(const Node* a, const Node* b) const;
  };
  using IdleSet = std::set<Node*, Older>;

  std::span<const uint32_t> page_of(std::span<const uint32_t> tokens, uint32_t page) const {
    return tokens.subspan(static_cast<size_t>(page) * page_tokens_, page_tokens_);
  }
  Node* find(const Node* parent, std::span<const uint32_t> tokens) const;
  Node& add(Node* parent, std::span<const uint32_t> tokens);
  void put_on_card(Node& node, host::PageId page);
  void use(Node& node);
  void set_own_page(Table& table, host::PageId page);
  bool promote(Node& node, const Table& table);
  bool reserve(uint32_t count);
  void evict(Node& node);
  void leave_card(Node& node);
  void forget(Node& node);
  void drop_host_bytes(Node& node);
  void give_up_host_memory(const host::DeviceError& error);

  Backend& backend_;
  Options options_;
  const uint32_t page_tokens_;
  std::unordered_map<Key, std::unique_ptr<Node>, Hash, Equal> nodes_;
  // Unused nodes that nothing hangs on, by age. Those on the card have no child on the card; those
  // in host memory have no child at all.
  IdleSet idle_on_card_;
  IdleSet idle_in_host_;
  uint32_t idle_pages_ = 0;  // pages on the card whose node has no user
  uint64_t uses_ = 0;        // the age of nodes
  uint64_t made_ = 0;
  Counts counts_;
};

}  // namespace flexllm::server
