#include "skein/text/word_cache.h"

#include <algorithm>
#include <functional>

namespace skein {

WordCache& WordCache::of_this_thread() {
  thread_local WordCache cache;
  return cache;
}

std::size_t WordCache::slot_of(std::uint32_t owner, std::string_view word) {
  return (std::hash<std::string_view>{}(word) ^ owner * 0x9E3779B9U) % kSlots;
}

bool WordCache::append(std::uint32_t owner, std::string_view word, std::vector<TokenId>& ids) const {
  const Entry& entry = entries_[slot_of(owner, word)];
  if (entry.owner != owner || std::string_view(entry.bytes, entry.num_bytes) != word) return false;
  ids.insert(ids.end(), entry.ids, entry.ids + entry.num_ids);
  return true;
}

void WordCache::remember(std::uint32_t owner, std::string_view word, const std::vector<TokenId>& ids,
                         std::size_t first) {
  const std::size_t num_ids = ids.size() - first;
  if (word.size() > kMaxBytes || num_ids > kMaxIds) return;
  Entry& entry = entries_[slot_of(owner, word)];
  entry.owner = owner;
  entry.num_bytes = static_cast<std::uint8_t>(word.size());
  entry.num_ids = static_cast<std::uint8_t>(num_ids);
  std::copy(word.begin(), word.end(), entry.bytes);
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), entry.ids);
}

}  // namespace skein
