#include "skein/merge/small_svd.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "skein/base/check.h"
#include "skein/base/thread_pool.h"

namespace skein::merge {
namespace {

// Rotates columns of `a` (and of `v` with them) until all are orthogonal. Columns are rows here, so that they lie in
// one piece: a (k, n), v (k, k).
void orthogonalise(Matrix& a, Matrix& v) {
  constexpr double kTolerance = 1e-15;
  constexpr int kMaxSweeps = 60;  // converges quadratically: about ten are needed
  const auto dot = [](const double* x, const double* y, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
    return sum;
  };
  const auto rotate = [](double* x, double* y, std::int64_t n, double c, double s) {
    for (std::int64_t i = 0; i < n; ++i) {
      const double xi = x[i];
      x[i] = c * xi - s * y[i];
      y[i] = s * xi + c * y[i];
    }
  };
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    bool rotated = false;
    for (std::int64_t p = 0; p < a.rows; ++p) {
      for (std::int64_t q = p + 1; q < a.rows; ++q) {
        double* x = a.values.data() + p * a.cols;
        double* y = a.values.data() + q * a.cols;
        const double xx = dot(x, x, a.cols), yy = dot(y, y, a.cols), xy = dot(x, y, a.cols);
        if (std::abs(xy) <= kTolerance * std::sqrt(xx * yy)) continue;
        rotated = true;
        const double zeta = (yy - xx) / (2 * xy);
        const double t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double c = 1 / std::sqrt(1 + t * t);
        rotate(x, y, a.cols, c, c * t);
        rotate(v.values.data() + p * v.cols, v.values.data() + q * v.cols, v.cols, c, c * t);
      }
    }
    if (!rotated) return;
  }
}

// Of a (k, k) matrix.
Svd jacobi(const Matrix& square) {
  const std::int64_t k = square.rows;
  Matrix columns = transposed(square);
  Matrix v(k, k);
  for (std::int64_t i = 0; i < k; ++i) v.at(i, i) = 1;
  orthogonalise(columns, v);
  std::vector<double> norms(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum += columns.at(i, j) * columns.at(i, j);
    norms[static_cast<std::size_t>(i)] = std::sqrt(sum);
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(k));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return norms[static_cast<std::size_t>(a)] > norms[static_cast<std::size_t>(b)];
  });
  Svd svd{Matrix(k, k), {}, Matrix(k, k)};
  for (std::int64_t column = 0; column < k; ++column) {
    const std::int64_t from = order[static_cast<std::size_t>(column)];
    const double norm = norms[static_cast<std::size_t>(from)];
    svd.s.push_back(norm);
    for (std::int64_t row = 0; row < k; ++row) {
      svd.u.at(row, column) = norm > 0 ? columns.at(from, row) / norm : 0;
      svd.v.at(row, column) = v.at(from, row);
    }
  }
  return svd;
}

}  // namespace

Matrix transposed(const Matrix& matrix) {
  Matrix result(matrix.cols, matrix.rows);
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    for (std::int64_t c = 0; c < matrix.cols; ++c) result.at(c, r) = matrix.at(r, c);
  }
  return result;
}

Matrix product(const Matrix& a, const Matrix& b) {
  SKEIN_CHECK(a.cols == b.rows);
  Matrix result(a.rows, b.cols);
  parallel_for(a.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      double* out = result.values.data() + row * b.cols;
      for (std::int64_t k = 0; k < a.cols; ++k) {
        const double factor = a.at(row, k);
        const double* from = b.values.data() + k * b.cols;
        for (std::int64_t column = 0; column < b.cols; ++column) out[column] += factor * from[column];
      }
    }
  });
  return result;
}

Qr thin_qr(Matrix matrix) {
  SKEIN_CHECK(matrix.rows >= matrix.cols);
  const std::int64_t m = matrix.rows, n = matrix.cols;
  // Columns as rows: reflections run along them. Row j of `a` keeps the reflector's vector from its diagonal on.
  Matrix a = transposed(matrix);
  std::vector<double> taus(static_cast<std::size_t>(n)), diagonal(static_cast<std::size_t>(n));
  const auto reflect = [m](const double* v, double tau, double* x, std::int64_t from) {
    double sum = 0;
    for (std::int64_t i = from; i < m; ++i) sum += v[i] * x[i];
    sum *= tau;
    for (std::int64_t i = from; i < m; ++i) x[i] -= sum * v[i];
  };
  for (std::int64_t j = 0; j < n; ++j) {
    double* v = a.values.data() + j * m;
    double squares = 0;
    for (std::int64_t i = j; i < m; ++i) squares += v[i] * v[i];
    const double norm = std::sqrt(squares);
    diagonal[static_cast<std::size_t>(j)] = v[j] > 0 ? -norm : norm;
    v[j] -= diagonal[static_cast<std::size_t>(j)];
    double length = 0;
    for (std::int64_t i = j; i < m; ++i) length += v[i] * v[i];
    taus[static_cast<std::size_t>(j)] = length > 0 ? 2 / length : 0;
    parallel_for(n - j - 1, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t other = j + 1 + begin; other < j + 1 + end; ++other) {
        reflect(v, taus[static_cast<std::size_t>(j)], a.values.data() + other * m, j);
      }
    });
  }
  Qr result{Matrix(m, n), Matrix(n, n)};
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = 0; i < j; ++i) result.r.at(i, j) = a.at(j, i);
    result.r.at(j, j) = diagonal[static_cast<std::size_t>(j)];
  }
  Matrix q(n, m);  // columns as rows again
  parallel_for(n, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t column = begin; column < end; ++column) {
      double* x = q.values.data() + column * m;
      x[column] = 1;
      for (std::int64_t j = std::min(column, n - 1); j >= 0; --j) {
        reflect(a.values.data() + j * m, taus[static_cast<std::size_t>(j)], x, j);
      }
    }
  });
  result.q = transposed(q);
  return result;
}

Svd small_svd(const Matrix& matrix) {
  if (matrix.rows < matrix.cols) {
    Svd svd = small_svd(transposed(matrix));
    std::swap(svd.u, svd.v);
    return svd;
  }
  const Qr qr = thin_qr(matrix);
  Svd svd = jacobi(qr.r);
  svd.u = product(qr.q, svd.u);
  return svd;
}

}  // namespace skein::merge
