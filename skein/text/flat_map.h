// A hash map from 64-bit keys to small values: open addressing in one array, built once, read often.
//
// Thread-safety: const look-ups may be shared. The key ~0 is reserved.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace skein {

template <typename Value>
class FlatMap {
 public:
  // expected: number of keys; the map grows beyond it.
  explicit FlatMap(std::size_t expected = 0) { resize_for(expected); }

  // Keeps the first value of a key. True if the key was new.
  bool insert(std::uint64_t key, const Value& value) {
    if ((size_ + 1) * 2 > slots_.size()) resize_for(size_ * 2 + 1);
    Slot& slot = slots_[slot_of(key)];
    if (slot.key == key) return false;
    slot = Slot{key, value};
    ++size_;
    return true;
  }

  const Value* find(std::uint64_t key) const {
    const Slot& slot = slots_[slot_of(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

  std::size_t size() const { return size_; }

 private:
  static constexpr std::uint64_t kNoKey = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kNoKey;
    Value value{};
  };

  // Where the key is, or where it would be put. At most half of the slots are taken, so the search ends.
  std::size_t slot_of(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (key * 0x9E3779B97F4A7C15ULL) >> shift_;
    while (slots_[at].key != key && slots_[at].key != kNoKey) at = (at + 1) & mask;
    return at;
  }

  void resize_for(std::size_t expected) {
    int bits = 4;
    while ((std::size_t{1} << bits) < expected * 2 + 2) ++bits;
    std::vector<Slot> old(std::size_t{1} << bits);
    old.swap(slots_);
    shift_ = 64 - bits;
    for (const Slot& slot : old) {
      if (slot.key != kNoKey) slots_[slot_of(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  int shift_ = 60;
};

}  // namespace skein
