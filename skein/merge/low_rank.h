// Low-rank matrices as two factors, and the best ones of a smaller rank.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/merge/random.h"

namespace skein::merge {

// b a: b (D_out, R), a (R, D_in), row-major.
struct Factors {
  std::int64_t d_out = 0, d_in = 0, rank = 0;
  std::vector<float> b, a;
};

struct Truncated {
  Factors factors;            // b carries the singular values, as PEFT writes them
  double relative_error = 0;  // Frobenius norm of what is lost over that of the whole; 0 for a matrix of zeros
};

// The best approximation of the given rank (Eckart and Young 1936), without forming the product: QR of b and of a^T,
// and the singular values of the small core r_b r_a^T. O((D_out + D_in) R^2 + R^3).
Truncated truncate(const Factors& whole, std::int64_t rank);

// The same of a dense (D_out, D_in) matrix. Exact up to min(D_out, D_in) = 384; larger ones by a randomised range of
// rank + 16 dimensions and four power iterations (Halko, Martinsson and Tropp 2011, algorithm 4.4), with random numbers
// of `key`. The error is measured, not estimated.
Truncated truncate_dense(const std::vector<float>& matrix, std::int64_t d_out, std::int64_t d_in, std::int64_t rank,
                         StreamKey key);

// Row-major (D_out, D_in): scale * b a, sums over the rank in f32 in order.
std::vector<float> dense_product(const Factors& factors, double scale);

}  // namespace skein::merge
