// Register tiles of the sparse product. Included once per instruction set, inside its namespace and target region: hence
// no include guard. Ops says what a vector is:
//   T, V (f32 accumulators), W (kPack elements per lane), X (kPack elements of a row in every lane),
//   kLanes, kPack, kShrinkRows, kExpandRows(vectors), kChains; Zero, LoadF, StoreF, LoadW, Spread, SpreadLast, Dot, Add,
//   Scale, StoreZ.

// kRows rows of one expert against one block of 16 ranks. Two chains of sums hide the latency of short tiles.
template <class Ops, int kRows>
inline void shrink_tile(const typename Ops::T* a, std::int64_t d_in, const typename Ops::T* const* x,
                        const float* weights, typename Ops::T* z, std::int64_t z_stride) {
  constexpr int kVectors = 16 / Ops::kLanes;
  constexpr int kStep = 16 * Ops::kPack;
  typename Ops::V sum[Ops::kChains][kRows][kVectors];
  _Pragma("GCC unroll 16") for (int c = 0; c < Ops::kChains; ++c) {
    _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[c][t][v] = Ops::Zero();
    }
  }
  const std::int64_t steps = d_in / Ops::kPack;
  std::int64_t s = 0;
  for (; s + Ops::kChains <= steps; s += Ops::kChains) {
    _Pragma("GCC unroll 16") for (int c = 0; c < Ops::kChains; ++c) {
      typename Ops::W w[kVectors];
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
        w[v] = Ops::LoadW(a + (s + c) * kStep + v * Ops::kLanes * Ops::kPack);
      }
      _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
        const typename Ops::X e = Ops::Spread(x[t] + (s + c) * Ops::kPack);
        _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[c][t][v] = Ops::Dot(sum[c][t][v], w[v], e);
      }
    }
  }
  for (; s * Ops::kPack < d_in; ++s) {
    const bool whole = (s + 1) * Ops::kPack <= d_in;
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      const typename Ops::W w = Ops::LoadW(a + s * kStep + v * Ops::kLanes * Ops::kPack);
      _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
        const typename Ops::T* e = x[t] + s * Ops::kPack;
        sum[0][t][v] = Ops::Dot(sum[0][t][v], w, whole ? Ops::Spread(e) : Ops::SpreadLast(e));
      }
    }
  }
  _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      typename Ops::V total = sum[0][t][v];
      _Pragma("GCC unroll 16") for (int c = 1; c < Ops::kChains; ++c) total = Ops::Add(total, sum[c][t][v]);
      Ops::StoreZ(Ops::Scale(total, weights[t]), z + t * z_stride + v * Ops::kLanes);
    }
  }
}

template <class Ops, int kRows>
inline void shrink_rest(std::int64_t count, const typename Ops::T* a, std::int64_t d_in,
                        const typename Ops::T* const* x, const float* weights, typename Ops::T* z,
                        std::int64_t z_stride) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      shrink_tile<Ops, kRows>(a, d_in, x, weights, z, z_stride);
    } else {
      shrink_rest<Ops, kRows - 1>(count, a, d_in, x, weights, z, z_stride);
    }
  }
}

template <class Ops>
inline void shrink(const typename Ops::T* a, std::int64_t d_in, const typename Ops::T* x, std::int64_t x_stride,
                   const std::int32_t* rows, const float* weights, std::int64_t count, typename Ops::T* z,
                   std::int64_t z_stride) {
  constexpr int kRows = Ops::kShrinkRows;
  const std::int64_t block_size = (d_in + Ops::kPack - 1) / Ops::kPack * 16 * Ops::kPack;
  for (std::int64_t block = 0; block * 16 < z_stride; ++block) {
    for (std::int64_t i = 0; i < count; i += kRows) {
      const std::int64_t tile = count - i < kRows ? count - i : kRows;
      const typename Ops::T* row[kRows];
      for (std::int64_t t = 0; t < tile; ++t) row[t] = x + rows[i + t] * x_stride;
      shrink_rest<Ops, kRows>(tile, a + block * block_size, d_in, row, weights + i, z + i * z_stride + block * 16,
                              z_stride);
    }
  }
}

// kRows rows against kVectors vectors of columns.
template <class Ops, int kVectors, int kRows>
inline void expand_tile(const typename Ops::T* b, std::int64_t steps, std::int64_t columns,
                        const typename Ops::T* const* z, float* const* d) {
  typename Ops::V sum[kRows][kVectors];
  _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[t][v] = Ops::LoadF(d[t] + v * Ops::kLanes);
  }
  for (std::int64_t s = 0; s < steps; ++s) {
    typename Ops::W w[kVectors];
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      w[v] = Ops::LoadW(b + (s * columns + v * Ops::kLanes) * Ops::kPack);
    }
    _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
      const typename Ops::X e = Ops::Spread(z[t] + s * Ops::kPack);
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[t][v] = Ops::Dot(sum[t][v], w[v], e);
    }
  }
  _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) Ops::StoreF(sum[t][v], d[t] + v * Ops::kLanes);
  }
}

template <class Ops, int kVectors, int kRows>
inline void expand_rest(std::int64_t count, const typename Ops::T* b, std::int64_t steps, std::int64_t columns,
                        const typename Ops::T* const* z, float* const* d) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      expand_tile<Ops, kVectors, kRows>(b, steps, columns, z, d);
    } else {
      expand_rest<Ops, kVectors, kRows - 1>(count, b, steps, columns, z, d);
    }
  }
}

// All rows for `kVectors` vectors of columns.
template <class Ops, int kVectors>
inline void expand_columns(const typename Ops::T* b, std::int64_t steps, std::int64_t columns,
                           const typename Ops::T* z, std::int64_t z_stride, const std::int32_t* rows,
                           std::int64_t count, float* d, std::int64_t d_stride) {
  constexpr int kRows = Ops::expand_rows(kVectors);
  for (std::int64_t i = 0; i < count; i += kRows) {
    const std::int64_t tile = count - i < kRows ? count - i : kRows;
    const typename Ops::T* z_row[kRows];
    float* d_row[kRows];
    for (std::int64_t t = 0; t < tile; ++t) {
      z_row[t] = z + (i + t) * z_stride;
      d_row[t] = d + (rows ? rows[i + t] : i + t) * d_stride;
    }
    expand_rest<Ops, kVectors, kRows>(tile, b, steps, columns, z_row, d_row);
  }
}

template <class Ops>
inline void expand(const typename Ops::T* b, std::int64_t steps, std::int64_t columns, const typename Ops::T* z,
                   std::int64_t z_stride, const std::int32_t* rows, std::int64_t count, float* d,
                   std::int64_t d_stride) {
  std::int64_t c = 0;
  for (; columns - c >= 4 * Ops::kLanes; c += 4 * Ops::kLanes) {
    expand_columns<Ops, 4>(b + c * Ops::kPack, steps, columns, z, z_stride, rows, count, d + c, d_stride);
  }
  b += c * Ops::kPack;
  d += c;
  const std::int64_t vectors = (columns - c) / Ops::kLanes;
  if (vectors == 3) expand_columns<Ops, 3>(b, steps, columns, z, z_stride, rows, count, d, d_stride);
  if (vectors == 2) expand_columns<Ops, 2>(b, steps, columns, z, z_stride, rows, count, d, d_stride);
  if (vectors == 1) expand_columns<Ops, 1>(b, steps, columns, z, z_stride, rows, count, d, d_stride);
}
