// A set of byte strings, each with a number, searched by prefix.
//
// Thread-safety: const look-ups may be shared.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "skein/text/flat_map.h"

namespace skein {

class ByteTrie {
 public:
  // The first number of a string stays. Empty strings are left out: they would match everywhere.
  void insert(std::string_view bytes, std::int32_t number);
  bool empty() const { return numbers_.empty(); }

  struct Match {
    std::int32_t number;
    std::size_t length;
  };
  // The longest string of the set that `text` starts with.
  std::optional<Match> longest_prefix(std::string_view text) const {
    std::optional<Match> longest;
    each_prefix(text, [&](Match match) { longest = match; });
    return longest;
  }

  // Calls visit(Match) for each string of the set that `text` starts with, shortest first.
  template <typename Visit>
  void each_prefix(std::string_view text, const Visit& visit) const {
    std::uint32_t node = 0;
    for (std::size_t length = 1; length <= text.size(); ++length) {
      const auto byte = static_cast<unsigned char>(text[length - 1]);
      if (node == 0) {
        node = roots_[byte];
        if (node == 0) return;
      } else {
        const std::uint32_t* child = children_.find(key(node, byte));
        if (child == nullptr) return;
        node = *child;
      }
      if (numbers_[node - 1] >= 0) visit(Match{numbers_[node - 1], length});
    }
  }

 private:
  static std::uint64_t key(std::uint32_t node, unsigned char byte) { return std::uint64_t{node} << 8 | byte; }

  std::uint32_t roots_[256] = {};  // node of each first byte; 0: none
  FlatMap<std::uint32_t> children_;
  std::vector<std::int32_t> numbers_;  // of node n at n - 1; -1: no string ends here
};

}  // namespace skein
