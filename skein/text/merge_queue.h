// The loop that both kinds of byte-pair encoding share: of all neighbours that may merge, the pair of lowest rank
// (leftmost among equals) merges first, until none may. O(n log n) with a heap, as each merge adds two candidates.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "skein/text/tokenizer.h"

namespace skein {

// A stretch of the word that is one token by now; a list linked through prev and next (-1: none).
struct MergeSymbol {
  TokenId id = -1;  // -1: not in the vocabulary
  std::int32_t prev = -1, next = -1;
  std::uint32_t begin = 0;   // byte of the word
  std::uint32_t length = 0;  // bytes; 0: merged into its left neighbour
};

struct MergeCandidate {
  std::uint32_t rank;
  TokenId id;  // of the merged token
};

// lookup(left, right) -> const MergeCandidate-like optional: whether and how two neighbours merge.
template <typename Lookup>
void merge_symbols(std::vector<MergeSymbol>& symbols, const Lookup& lookup) {
  struct Entry {
    std::uint64_t order;  // rank, then position of the left symbol
    std::int32_t right;
    std::uint32_t length;  // of both together: another value by now means that one of them has changed
    TokenId id;
  };
  const auto later = [](const Entry& a, const Entry& b) { return a.order > b.order; };
  thread_local std::vector<Entry> heap;
  heap.clear();

  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    const auto candidate = lookup(symbols[left], symbols[right]);
    if (!candidate) return;
    heap.push_back({std::uint64_t{candidate->rank} << 32 | static_cast<std::uint32_t>(left), right,
                    symbols[left].length + symbols[right].length, candidate->id});
    std::push_heap(heap.begin(), heap.end(), later);
  };

  for (std::size_t i = 1; i < symbols.size(); ++i) {
    consider(static_cast<std::int32_t>(i) - 1, static_cast<std::int32_t>(i));
  }
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Entry entry = heap.back();
    heap.pop_back();
    const auto left_index = static_cast<std::int32_t>(entry.order & 0xFFFFFFFF);
    MergeSymbol& left = symbols[left_index];
    MergeSymbol& right = symbols[entry.right];
    if (left.length == 0 || right.length == 0 || left.length + right.length != entry.length) continue;
    left.id = entry.id;
    left.length = entry.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].prev = left_index;
    consider(left.prev, left_index);
    consider(left_index, left.next);
  }
}

}  // namespace skein
