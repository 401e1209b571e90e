// Register tiles of the sparse product. Included once per instruction set, inside its namespace and target region:
// hence no include guard. Ops says what a vector is:
//   T, V (f32 accumulators), W (kPack elements per lane), X (kPack elements of a row in every lane),
//   kLanes, kPack, kShrinkRows, project_rows(vectors), kChains; Zero, StoreF, LoadW, Spread, SpreadLast, Dot, Add,
//   Scale, and for rows of T: LoadT, StoreT.

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
      Ops::StoreT(Ops::Scale(total, weights[t]), z + t * z_stride + v * Ops::kLanes);
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

// One row against kVectors vectors of columns. Two chains of sums, and the rows that follow run beside them.
template <class Ops, int kVectors>
inline void expand_row(const typename Ops::T* b, const RankPiece* pieces, std::int64_t count, typename Ops::T* y,
                       std::int64_t width) {
  using T = typename Ops::T;
  constexpr std::int64_t kColumns = kVectors * Ops::kLanes;
  constexpr std::int64_t kStep = kColumns * Ops::kPack;
  typename Ops::V sum[kVectors], odd[kVectors];
  _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[v] = odd[v] = Ops::Zero();
  for (std::int64_t i = 0; i < count; ++i) {
    const T* const w = b + pieces[i].b_begin;
    const T* const z = static_cast<const T*>(pieces[i].z);
    const char* const next = reinterpret_cast<const char*>(w + pieces[i].steps * kStep) + pieces[i].ahead_begin;
    for (std::int64_t line = 0; line < pieces[i].ahead_size; line += 64) __builtin_prefetch(next + line, 0, 2);
    std::int64_t s = 0;
    for (; s + 2 <= pieces[i].steps; s += 2) {
      const typename Ops::X e0 = Ops::Spread(z + s * Ops::kPack);
      const typename Ops::X e1 = Ops::Spread(z + (s + 1) * Ops::kPack);
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
        const T* const at = w + s * kStep + v * Ops::kLanes * Ops::kPack;
        sum[v] = Ops::Dot(sum[v], Ops::LoadW(at), e0);
        odd[v] = Ops::Dot(odd[v], Ops::LoadW(at + kStep), e1);
      }
    }
    if (s < pieces[i].steps) {
      const typename Ops::X e = Ops::Spread(z + s * Ops::kPack);
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
        sum[v] = Ops::Dot(sum[v], Ops::LoadW(w + s * kStep + v * Ops::kLanes * Ops::kPack), e);
      }
    }
  }
  _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[v] = Ops::Add(sum[v], odd[v]);
  if (width == kColumns) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      Ops::StoreT(Ops::Add(Ops::LoadT(y + v * Ops::kLanes), sum[v]), y + v * Ops::kLanes);
    }
    return;
  }
  T whole[kColumns] = {};  // the last columns of y: no full vector
  for (std::int64_t c = 0; c < width; ++c) whole[c] = y[c];
  _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
    Ops::StoreT(Ops::Add(Ops::LoadT(whole + v * Ops::kLanes), sum[v]), whole + v * Ops::kLanes);
  }
  for (std::int64_t c = 0; c < width; ++c) y[c] = whole[c];
}

template <class Ops, int kVectors>
inline void expand_rows(const typename Ops::T* b, const RankPiece* pieces, const std::int64_t* begin,
                        std::int64_t num_rows, typename Ops::T* y, std::int64_t y_stride, std::int64_t width) {
  for (std::int64_t n = 0; n < num_rows; ++n) {
    const std::int64_t count = begin[n + 1] - begin[n];
    if (count > 0) expand_row<Ops, kVectors>(b, pieces + begin[n], count, y + n * y_stride, width);
  }
}

template <class Ops>
inline void expand(const typename Ops::T* b, const RankPiece* pieces, const std::int64_t* begin, std::int64_t num_rows,
                   typename Ops::T* y, std::int64_t y_stride, std::int64_t width) {
  if (width > 16) {
    expand_rows<Ops, 32 / Ops::kLanes>(b, pieces, begin, num_rows, y, y_stride, width);
  } else {
    expand_rows<Ops, 16 / Ops::kLanes>(b, pieces, begin, num_rows, y, y_stride, width);
  }
}

// kRows rows against kVectors vectors of columns.
template <class Ops, int kVectors, int kRows>
inline void project_tile(const typename Ops::T* g, std::int64_t steps, std::int64_t columns, const typename Ops::T* x,
                         std::int64_t x_stride, float* scores, std::int64_t scores_stride) {
  typename Ops::V sum[kRows][kVectors];
  _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[t][v] = Ops::Zero();
  }
  for (std::int64_t s = 0; s < steps; ++s) {
    typename Ops::W w[kVectors];
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      w[v] = Ops::LoadW(g + (s * columns + v * Ops::kLanes) * Ops::kPack);
    }
    _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
      const typename Ops::X e = Ops::Spread(x + t * x_stride + s * Ops::kPack);
      _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[t][v] = Ops::Dot(sum[t][v], w[v], e);
    }
  }
  _Pragma("GCC unroll 16") for (int t = 0; t < kRows; ++t) {
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) {
      Ops::StoreF(sum[t][v], scores + t * scores_stride + v * Ops::kLanes);
    }
  }
}

template <class Ops, int kVectors, int kRows>
inline void project_rest(std::int64_t count, const typename Ops::T* g, std::int64_t steps, std::int64_t columns,
                         const typename Ops::T* x, std::int64_t x_stride, float* scores, std::int64_t scores_stride) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      project_tile<Ops, kVectors, kRows>(g, steps, columns, x, x_stride, scores, scores_stride);
    } else {
      project_rest<Ops, kVectors, kRows - 1>(count, g, steps, columns, x, x_stride, scores, scores_stride);
    }
  }
}

template <class Ops, int kVectors>
inline void project_columns(const typename Ops::T* g, std::int64_t steps, std::int64_t columns,
                            const typename Ops::T* x, std::int64_t x_stride, std::int64_t num_rows, float* scores,
                            std::int64_t scores_stride) {
  constexpr int kRows = Ops::project_rows(kVectors);
  for (std::int64_t n = 0; n < num_rows; n += kRows) {
    const std::int64_t tile = num_rows - n < kRows ? num_rows - n : kRows;
    project_rest<Ops, kVectors, kRows>(tile, g, steps, columns, x + n * x_stride, x_stride, scores + n * scores_stride,
                                       scores_stride);
  }
}

template <class Ops>
inline void project(const typename Ops::T* g, std::int64_t steps, std::int64_t columns, const typename Ops::T* x,
                    std::int64_t x_stride, std::int64_t num_rows, float* scores, std::int64_t scores_stride) {
  std::int64_t c = 0;
  for (; columns - c >= 4 * Ops::kLanes; c += 4 * Ops::kLanes) {
    project_columns<Ops, 4>(g + c * Ops::kPack, steps, columns, x, x_stride, num_rows, scores + c, scores_stride);
  }
  g += c * Ops::kPack;
  scores += c;
  const std::int64_t vectors = (columns - c) / Ops::kLanes;
  if (vectors == 3) project_columns<Ops, 3>(g, steps, columns, x, x_stride, num_rows, scores, scores_stride);
  if (vectors == 2) project_columns<Ops, 2>(g, steps, columns, x, x_stride, num_rows, scores, scores_stride);
  if (vectors == 1) project_columns<Ops, 1>(g, steps, columns, x, x_stride, num_rows, scores, scores_stride);
}
