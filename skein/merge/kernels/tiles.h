// Tiles: short runs of f32 that stay in the first-level cache while a method works on them.
//
// A tile has room for kTile elements; n of them are in use, and what lies between n and the next multiple of 16 is
// zero after a load, so that kernels work on whole vectors. Scalar twins of all kernels are in the tests.
//
// All kernels choose their instruction set at run time and give the same bits on each. Thread-safe.
#pragma once

#include <cstdint>

#include "skein/merge/method.h"

namespace skein::merge {

inline constexpr std::int64_t kTile = 1024;
// Elements a kernel may touch in a tile of n.
inline constexpr std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }

struct TileKernels {
  // tile = piece[offset, offset + n)
  void (*load)(const Piece& piece, std::int64_t offset, std::int64_t n, float* tile);
  // delta = piece[offset, offset + n) - base
  void (*load_delta)(const Piece& piece, std::int64_t offset, std::int64_t n, const float* base, float* delta);
  // sum += factor * piece[offset, offset + n)
  void (*add_scaled)(const Piece& piece, std::int64_t offset, std::int64_t n, float factor, float* sum);
  // sum += factor * (piece[offset, offset + n) - base)
  void (*add_scaled_delta)(const Piece& piece, std::int64_t offset, std::int64_t n, const float* base, float factor,
                           float* sum);
  // tile = factor * tile; tile = tile / divisor; tile = base + tile
  void (*scale)(float* tile, std::int64_t n, float factor);
  void (*divide)(float* tile, std::int64_t n, float divisor);
  void (*add)(float* tile, std::int64_t n, const float* base);
  // Rounds to the output's type, to nearest even.
  void (*store)(const float* tile, std::int64_t n, const Output& output, std::int64_t offset);
};

// By value: keep it in the object that works with it. (Asked anew each time, so that tests can change the set.)
TileKernels tile_kernels();

}  // namespace skein::merge
