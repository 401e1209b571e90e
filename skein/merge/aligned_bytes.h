// A buffer whose first byte is aligned to 64, as TensorReader::read asks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace skein::merge {

class AlignedBytes {
 public:
  explicit AlignedBytes(std::int64_t size)
      : bytes_(static_cast<std::byte*>(::operator new(size > 0 ? size : 1, kAlignment))), size_(size) {}

  std::byte* data() { return bytes_.get(); }
  std::int64_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::int64_t size_;
};

}  // namespace skein::merge
