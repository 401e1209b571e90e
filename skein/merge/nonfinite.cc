#include "skein/merge/nonfinite.h"

#include <cstring>

namespace skein::merge {
namespace {

// All exponent bits set. In pieces of fixed size, which the compiler turns into vectors.
template <typename Bits>
std::uint64_t count_exponents(const std::byte* data, std::int64_t count, Bits exponent) {
  constexpr std::int64_t kPiece = 256;
  std::uint64_t found = 0;
  Bits bits[kPiece];
  std::int64_t i = 0;
  for (; i + kPiece <= count; i += kPiece) {
    std::memcpy(bits, data + i * static_cast<std::int64_t>(sizeof(Bits)), sizeof(bits));
    Bits in_piece = 0;
    for (std::int64_t j = 0; j < kPiece; ++j) in_piece += (bits[j] & exponent) == exponent ? 1 : 0;
    found += in_piece;
  }
  for (; i < count; ++i) {
    std::memcpy(bits, data + i * static_cast<std::int64_t>(sizeof(Bits)), sizeof(Bits));
    found += (bits[0] & exponent) == exponent ? 1 : 0;
  }
  return found;
}

}  // namespace

std::uint64_t count_nonfinite(DType dtype, const std::byte* data, std::int64_t count) {
  switch (dtype) {
    case DType::kF64:
      return count_exponents<std::uint64_t>(data, count, 0x7ff0000000000000U);
    case DType::kF32:
      return count_exponents<std::uint32_t>(data, count, 0x7f800000U);
    case DType::kBF16:
      return count_exponents<std::uint16_t>(data, count, 0x7f80U);
    case DType::kF16:
      return count_exponents<std::uint16_t>(data, count, 0x7c00U);
    default:
      return 0;
  }
}

}  // namespace skein::merge
