// Singular values of matrices with one small side, in f64 and the same on every machine: Householder QR, then one-sided
// Jacobi on the small triangle. For low-rank adapters; no BLAS, so no bits that depend on its threads.
#pragma once

#include <cstdint>
#include <vector>

namespace skein::merge {

// Row-major (rows, cols).
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), values(static_cast<std::size_t>(r * c)) {}
  double& at(std::int64_t r, std::int64_t c) { return values[static_cast<std::size_t>(r * cols + c)]; }
  double at(std::int64_t r, std::int64_t c) const { return values[static_cast<std::size_t>(r * cols + c)]; }
};

Matrix transposed(const Matrix& matrix);
Matrix product(const Matrix& a, const Matrix& b);  // parallel over rows of a; each entry summed in order

// matrix = q r. Requires rows >= cols. q (rows, cols) has orthonormal columns, r (cols, cols) is upper triangular.
struct Qr {
  Matrix q, r;
};
Qr thin_qr(Matrix matrix);

// matrix = u diag(s) v^T with k = min(rows, cols): u (rows, k), s (k) falling, v (cols, k). One-sided Jacobi (Hestenes
// 1958; Demmel and Veselic 1992 on its accuracy) after a QR of the tall side. Cost O(rows cols k + k^3).
struct Svd {
  Matrix u;
  std::vector<double> s;
  Matrix v;
};
Svd small_svd(const Matrix& matrix);

}  // namespace skein::merge
