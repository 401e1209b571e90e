#include "skein/serve/prefix_cache.h"

#include <algorithm>
#include <functional>

namespace skein {

std::size_t PrefixCache::Hash::operator()(const Key& key) const {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a over words
  const auto mix = [&hash](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3ULL; };
  mix(key.owner.model);
  mix(std::hash<std::string>{}(key.owner.scope));
  mix(key.parent);
  for (const TokenId token : key.tokens) mix(static_cast<std::uint64_t>(token));
  return static_cast<std::size_t>(hash ^ (hash >> 32));
}

void PrefixCache::touch(const Key& key, Node& node) {
  by_use_.erase(order_of(node));
  node.last_use = now_;
  by_use_.emplace(order_of(node), &key);
}

std::vector<std::shared_ptr<const KvPage>> PrefixCache::find(const PrefixOwner& owner,
                                                             std::span<const TokenId> tokens) {
  ++now_;
  std::vector<std::shared_ptr<const KvPage>> pages;
  const auto size = static_cast<std::size_t>(page_size_);
  Key key{owner, 0, {}};
  for (; tokens.size() >= size; tokens = tokens.subspan(size)) {
    key.tokens.assign(tokens.begin(), tokens.begin() + page_size_);
    const auto found = nodes_.find(key);
    if (found == nodes_.end()) break;
    touch(found->first, found->second);
    pages.push_back(found->second.page);
    key.owner = {};
    key.parent = found->second.number;
  }
  return pages;
}

void PrefixCache::insert(const PrefixOwner& owner, std::span<const TokenId> tokens,
                         const std::vector<std::shared_ptr<const KvPage>>& pages) {
  ++now_;
  const auto size = static_cast<std::size_t>(page_size_);
  Key key{owner, 0, {}};
  for (std::size_t i = 0; tokens.size() >= size; ++i, tokens = tokens.subspan(size)) {
    key.tokens.assign(tokens.begin(), tokens.begin() + page_size_);
    const auto [at, is_new] = nodes_.try_emplace(key);
    Node& node = at->second;
    if (is_new) node = {next_number_++, static_cast<std::int64_t>(i), 0, pages[i]};
    touch(at->first, node);
    key.owner = {};
    key.parent = node.number;
  }
}

bool PrefixCache::evict() {
  for (auto at = by_use_.begin(); at != by_use_.end(); ++at) {
    const auto node = nodes_.find(*at->second);
    if (node->second.page.use_count() > 1) continue;
    by_use_.erase(at);
    nodes_.erase(node);
    return true;
  }
  return false;
}

std::int64_t PrefixCache::num_idle() const {
  return std::count_if(nodes_.begin(), nodes_.end(),
                       [](const auto& node) { return node.second.page.use_count() == 1; });
}

}  // namespace skein
