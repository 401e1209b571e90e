#include "skein/text/byte_trie.h"

namespace skein {

void ByteTrie::insert(std::string_view bytes, std::int32_t number) {
  if (bytes.empty()) return;
  const auto new_node = [&] {
    numbers_.push_back(-1);
    return static_cast<std::uint32_t>(numbers_.size());
  };
  std::uint32_t& root = roots_[static_cast<unsigned char>(bytes[0])];
  if (root == 0) root = new_node();
  std::uint32_t node = root;
  for (const char byte : bytes.substr(1)) {
    const std::uint64_t edge = key(node, static_cast<unsigned char>(byte));
    if (const std::uint32_t* child = children_.find(edge)) {
      node = *child;
    } else {
      node = new_node();
      children_.insert(edge, node);
    }
  }
  if (numbers_[node - 1] < 0) numbers_[node - 1] = number;
}

}  // namespace skein
