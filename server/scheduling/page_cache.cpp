#include "server/scheduling/page_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace flexllm::server {

using host::PageId;

// One full page of one sequence of tokens: its parent is the page before it. A node is on the card,
// in host memory, or being filled. Parents of nodes on the card are on the card, and whoever uses a
// node uses its parents too.
struct PageCache::Node {
  Node* parent = nullptr;
  const Key* key = nullptr;
  uint64_t id = 0;  // order of making: children are younger than their parents
  std::optional<PageId> page;
  std::vector<std::byte> bytes;  // where it is not on the card
  uint32_t users = 0;            // tables that share it
  uint32_t children = 0;
  uint32_t children_on_card = 0;
  uint64_t last_use = 0;
};

size_t PageCache::Hash::operator()(const KeyView& key) const {
  uint64_t hash = reinterpret_cast<uintptr_t>(key.parent);
  for (const uint32_t token : key.tokens) {
    hash = (hash ^ token) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 32;
  }
  return hash;
}

bool PageCache::Older::operator()(const Node* a, const Node* b) const {
  // Of one use the last page first: the beginning of a text is shared more often than its end.
  return std::tuple(a->last_use, b->id) < std::tuple(b->last_use, a->id);
}

PageCache::PageCache(Backend& backend, Options options)
    : backend_(backend), options_(options), page_tokens_(backend.limits().page_tokens) {}

PageCache::~PageCache() = default;

PageCache::Node* PageCache::find(const Node* parent, std::span<const uint32_t> tokens) const {
  const auto found = nodes_.find(KeyView{parent, tokens});
  return found == nodes_.end() ? nullptr : found->second.get();
}

PageCache::Node& PageCache::add(Node* parent, std::span<const uint32_t> tokens) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  node->id = ++made_;
  if (parent != nullptr) ++parent->children;
  const auto [place, fresh] =
      nodes_.emplace(Key{parent, {tokens.begin(), tokens.end()}}, std::move(node));
  place->second->key = &place->first;
  return *place->second;
}

// The cache becomes an owner of `page`, which holds what the node stands for.
void PageCache::put_on_card(Node& node, PageId page) {
  drop_host_bytes(node);
  backend_.pages().share(page);
  node.page = page;
  ++idle_pages_;
  if (node.parent != nullptr && node.parent->children_on_card++ == 0) {
    idle_on_card_.erase(node.parent);
  }
}

void PageCache::use(Node& node) {
  if (node.users++ > 0) return;
  --idle_pages_;
  idle_on_card_.erase(&node);
}

// The table's first page that is not shared becomes `page`, of which it is now an owner.
void PageCache::set_own_page(Table& table, PageId page) {
  if (table.pages_.size() == table.shared_) {
    table.pages_.push_back(page);
  } else {
    backend_.pages().release(std::exchange(table.pages_[table.shared_], page));
  }
}

uint32_t PageCache::extend(Table& table, std::span<const uint32_t> tokens, uint32_t limit) {
  const uint32_t before = table.shared_;
  while (table.shared_ < limit) {
    Node* node = find(table.last_, page_of(tokens, table.shared_));
    if (node == nullptr || (!node->page && !promote(*node, table))) break;
    use(*node);
    backend_.pages().share(*node->page);
    set_own_page(table, *node->page);
    table.last_ = node;
    ++table.shared_;
  }
  return table.shared_ - before;
}

// Brings the bytes of a node back to the card: into the page that the table has for it, or else
// into one that is free.
bool PageCache::promote(Node& node, const Table& table) {
  const bool own = table.pages_.size() > table.shared_;
  idle_in_host_.erase(&node);
  ++node.users;  // making room must not forget it
  std::optional<PageId> page;
  if (own) {
    page = table.pages_[table.shared_];
  } else if (reserve(1)) {
    const auto& pages = table.pages_;
    page = backend_.pages()
               .allocate(1, pages.empty() ? std::nullopt : std::optional(pages.back()))
               ->front();
  }
  tl::expected<void, host::DeviceError> written;
  if (page) written = backend_.write_page(*page, node.bytes);
  --node.users;
  if (page && written) {
    put_on_card(node, *page);
    ++counts_.from_host;
  } else if (node.children == 0) {
    idle_in_host_.insert(&node);
  }
  if (page && !own) backend_.pages().release(*page);
  if (!written) give_up_host_memory(written.error());
  return page && written;
}

void PageCache::insert(Table& table, std::span<const uint32_t> tokens, uint32_t full) {
  if (!options_.reuse) return;
  while (table.shared_ < full) {
    const auto page_tokens = page_of(tokens, table.shared_);
    const PageId own = table.pages_.at(table.shared_);
    Node* node = find(table.last_, page_tokens);
    if (node == nullptr) node = &add(table.last_, page_tokens);
    if (!node->page) {
      put_on_card(*node, own);
    } else if (*node->page != own) {
      backend_.pages().share(*node->page);
      set_own_page(table, *node->page);
    }
    use(*node);
    table.last_ = node;
    ++table.shared_;
  }
}

bool PageCache::same_next_page(const Table& a, std::span<const uint32_t> a_tokens, const Table& b,
                               std::span<const uint32_t> b_tokens) const {
  if (!options_.reuse || a.last_ != b.last_ || a.shared_ != b.shared_) return false;
  const size_t end = static_cast<size_t>(a.shared_ + 1) * page_tokens_;
  if (end > a_tokens.size() || end > b_tokens.size()) return false;
  return std::ranges::equal(page_of(a_tokens, a.shared_), page_of(b_tokens, b.shared_));
}

bool PageCache::grow(Table& table, uint32_t count) {
  const auto have = static_cast<uint32_t>(table.pages_.size());
  if (count <= have) return true;
  if (count - have > available() || !reserve(count - have)) return false;
  const auto after = have == 0 ? std::nullopt : std::optional(table.pages_.back());
  const auto pages = backend_.pages().allocate(count - have, after);
  table.pages_.insert(table.pages_.end(), pages->begin(), pages->end());
  return true;
}

bool PageCache::reserve(uint32_t count) {
  while (backend_.pages().available() < count) {
    if (idle_on_card_.empty()) return false;
    evict(**idle_on_card_.begin());
  }
  return true;
}

void PageCache::evict(Node& node) {
  if (options_.host_bytes > 0) {
    auto bytes = backend_.read_page(*node.page);
    if (bytes) {
      counts_.host_bytes += bytes->size();
      node.bytes = std::move(*bytes);
      ++counts_.to_host;
    } else {
      give_up_host_memory(bytes.error());
    }
  }
  leave_card(node);
  if (node.bytes.empty()) {
    ++counts_.forgotten;
    forget(node);
    return;
  }
  if (node.children == 0) idle_in_host_.insert(&node);
  while (counts_.host_bytes > options_.host_bytes && !idle_in_host_.empty()) {
    ++counts_.forgotten;
    forget(**idle_in_host_.begin());
  }
}

// The node is idle and has no child on the card.
void PageCache::leave_card(Node& node) {
  idle_on_card_.erase(&node);
  --idle_pages_;
  backend_.pages().release(*node.page);
  node.page.reset();
  Node* parent = node.parent;
  if (parent != nullptr && --parent->children_on_card == 0 && parent->users == 0) {
    idle_on_card_.insert(parent);
  }
}

// The node is not on the card and has no children.
void PageCache::forget(Node& node) {
  drop_host_bytes(node);
  Node* parent = node.parent;
  if (parent != nullptr && --parent->children == 0 && !parent->page && parent->users == 0) {
    idle_in_host_.insert(parent);
  }
  nodes_.erase(nodes_.find(*node.key));
}

void PageCache::drop_host_bytes(Node& node) {
  idle_in_host_.erase(&node);
  counts_.host_bytes -= node.bytes.size();
  node.bytes = {};
}

// A card that cannot copy a page works without; one that is broken shows at the next launch.
void PageCache::give_up_host_memory(const host::DeviceError& error) {
  spdlog::warn("scheduler: pages are no longer kept in host memory: {}", error.message);
  options_.host_bytes = 0;
  while (!idle_in_host_.empty()) forget(**idle_in_host_.begin());
}

void PageCache::release(Table& table, Keep keep) {
  ++uses_;
  for (Node* node = table.last_; node != nullptr;) {
    Node* parent = node->parent;
    node->last_use = uses_;
    if (--node->users == 0) {
      ++idle_pages_;
      if (node->children_on_card == 0) idle_on_card_.insert(node);
      if (keep == Keep::no && node->children == 0) {
        leave_card(*node);
        forget(*node);
      }
    }
    node = parent;
  }
  for (const PageId page : table.pages_) backend_.pages().release(page);
  table = {};
}

void PageCache::clear() {
  for (const auto& [key, node] : nodes_) {
    if (node->users > 0) throw std::logic_error("a page table outlives what its pages held");
    if (node->page) backend_.pages().release(*node->page);
  }
  idle_on_card_.clear();
  idle_in_host_.clear();
  nodes_.clear();
  idle_pages_ = 0;
  counts_.host_bytes = 0;
}

}  // namespace flexllm::server
