// Keys and values of prompts that were read, page by page, for prompts that begin with the same tokens under the same
// choice of experts.
//
// A tree: a page is found by the page before it and its own tokens, which are compared, not only hashed, so that no
// request can be given another's keys by a collision. Roots differ by who may share: a prompt that is answered sooner
// tells that somebody has asked it before (vLLM's CVE-2025-46570). Least recently used pages go first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "skein/nn/kv_cache.h"
#include "skein/text/tokenizer.h"

namespace skein {

// Whose pages: those of other owners are neither found nor seen.
struct PrefixOwner {
  std::uint64_t model = 0;  // ServedModel::identity
  std::string scope;        // Request::prefix_scope
  bool operator==(const PrefixOwner&) const = default;
};

// Used by one thread.
class PrefixCache {
 public:
  explicit PrefixCache(std::int64_t page_size) : page_size_(page_size) {}

  // The longest chain of whole pages of `tokens` that is here.
  std::vector<std::shared_ptr<const KvPage>> find(const PrefixOwner& owner, std::span<const TokenId> tokens);
  // Keeps pages, the first tokens.size() / page_size of which hold the keys and values of tokens. What is here already
  // stays.
  void insert(const PrefixOwner& owner, std::span<const TokenId> tokens,
              const std::vector<std::shared_ptr<const KvPage>>& pages);
  // Lets go of the least recently used page that nobody else holds. false: there is none.
  bool evict();
  std::int64_t size() const { return static_cast<std::int64_t>(nodes_.size()); }
  // Pages that only this holds.
  std::int64_t num_idle() const;

 private:
  struct Key {
    PrefixOwner owner;         // of a first page; of others the parent tells
    std::uint64_t parent = 0;  // the number of the page before; 0: none
    std::vector<TokenId> tokens;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const;
  };
  struct Node {
    std::uint64_t number = 0;
    std::int64_t depth = 0;
    std::uint64_t last_use = 0;
    std::shared_ptr<const KvPage> page;
  };
  using Nodes = std::unordered_map<Key, Node, Hash>;
  // Whoever uses a page uses those before it, so that the first in this order has no page after it.
  using Order = std::tuple<std::uint64_t, std::int64_t, std::uint64_t>;  // last use, -depth, number
  static Order order_of(const Node& node) { return {node.last_use, -node.depth, node.number}; }
  void touch(const Key& key, Node& node);

  std::int64_t page_size_;
  Nodes nodes_;
  std::map<Order, const Key*> by_use_;
  std::uint64_t next_number_ = 1, now_ = 0;
};

}  // namespace skein
