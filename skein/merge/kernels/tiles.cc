#include "skein/merge/kernels/tiles.h"

// Vectors of a fixed size only. SSSE3 has nothing for these loops that SSE2 or SSE4 lacks.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/merge/kernels/tiles.cc"
#include "hwy/foreach_target.h"
//
#include "skein/merge/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {
namespace {

void load(const Piece& piece, std::int64_t offset, std::int64_t n, float* tile) {
  const std::int64_t end = padded(n);
  for_each_vector(piece, offset, n, [&](VF x, std::int64_t i) { hn::StoreU(x, F(), tile + i); });
  for (std::int64_t i = (n + kLanes - 1) / kLanes * kLanes; i < end; ++i) tile[i] = 0;
}

void load_delta(const Piece& piece, std::int64_t offset, std::int64_t n, const float* base, float* delta) {
  const std::int64_t end = padded(n);
  for_each_vector(piece, offset, n,
                  [&](VF x, std::int64_t i) { hn::StoreU(hn::Sub(x, hn::LoadU(F(), base + i)), F(), delta + i); });
  for (std::int64_t i = (n + kLanes - 1) / kLanes * kLanes; i < end; ++i) delta[i] = 0;
}

void add_scaled(const Piece& piece, std::int64_t offset, std::int64_t n, float factor, float* sum) {
  const auto w = hn::Set(F(), factor);
  for_each_vector(piece, offset, n, [&](VF x, std::int64_t i) {
    hn::StoreU(hn::Add(hn::LoadU(F(), sum + i), hn::Mul(w, x)), F(), sum + i);
  });
}

void add_scaled_delta(const Piece& piece, std::int64_t offset, std::int64_t n, const float* base, float factor,
                      float* sum) {
  const auto w = hn::Set(F(), factor);
  for_each_vector(piece, offset, n, [&](VF x, std::int64_t i) {
    const auto delta = hn::Sub(x, hn::LoadU(F(), base + i));
    hn::StoreU(hn::Add(hn::LoadU(F(), sum + i), hn::Mul(w, delta)), F(), sum + i);
  });
}

void scale(float* tile, std::int64_t n, float factor) {
  const auto w = hn::Set(F(), factor);
  for (std::int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Mul(w, hn::LoadU(F(), tile + i)), F(), tile + i);
}

void divide(float* tile, std::int64_t n, float divisor) {
  const auto w = hn::Set(F(), divisor);
  for (std::int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Div(hn::LoadU(F(), tile + i), w), F(), tile + i);
}

void add(float* tile, std::int64_t n, const float* base) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    hn::StoreU(hn::Add(hn::LoadU(F(), base + i), hn::LoadU(F(), tile + i)), F(), tile + i);
  }
}

template <DType kType>
HWY_INLINE void store_as(const float* tile, std::int64_t n, std::byte* to) {
  constexpr auto kBytes = static_cast<std::int64_t>(kSize<kType>);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_from_f32<kType>(hn::LoadU(F(), tile + i), to + i * kBytes);
  if (i < n) {
    alignas(64) std::byte rest[kLanes * 4];
    store_from_f32<kType>(hn::LoadU(F(), tile + i), rest);
    std::memcpy(to + i * kBytes, rest, static_cast<std::size_t>((n - i) * kBytes));
  }
}

void store(const float* tile, std::int64_t n, const Output& output, std::int64_t offset) {
  switch (output.dtype) {
    case DType::kBF16:
      return store_as<DType::kBF16>(tile, n, output.data + 2 * offset);
    case DType::kF16:
      return store_as<DType::kF16>(tile, n, output.data + 2 * offset);
    default:
      return store_as<DType::kF32>(tile, n, output.data + 4 * offset);
  }
}

}  // namespace

TileKernels TileTable() { return {load, load_delta, add_scaled, add_scaled_delta, scale, divide, add, store}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(TileTable);

TileKernels tile_kernels() { return HWY_DYNAMIC_DISPATCH(TileTable)(); }

}  // namespace skein::merge
#endif
