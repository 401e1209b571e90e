// A cursor over untrusted little-endian bytes: every step is checked, and the first fault is remembered.
//
// After a fault all reads give zero and ok() is false: a caller may read a few fields and ask once.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace skein {

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  T number() {
    static_assert(std::endian::native == std::endian::little);
    T value{};
    const auto raw = take(sizeof(T));
    if (ok_) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  // The next `count` bytes; empty after a fault.
  std::span<const std::byte> take(std::uint64_t count) {
    if (!ok_ || count > left()) {
      ok_ = false;
      return {};
    }
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += static_cast<std::size_t>(count);
    return taken;
  }

  std::string text(std::uint64_t count) { return std::string(text_in_place(count)); }
  // The bytes where they are: lives as long as they do.
  std::string_view text_in_place(std::uint64_t count) {
    const auto raw = take(count);
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace skein
