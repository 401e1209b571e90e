#include "skein/merge/low_rank.h"

#include <algorithm>
#include <cmath>

#include "skein/base/thread_pool.h"
#include "skein/merge/small_svd.h"

namespace skein::merge {
namespace {

constexpr std::int64_t kExactSide = 384;
constexpr std::int64_t kOversampling = 16;
constexpr int kPowerIterations = 4;

Matrix widened(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  Matrix matrix(rows, cols);
  std::copy(values.begin(), values.end(), matrix.values.begin());
  return matrix;
}

double sum_of_squares(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return sum;
}

// The leading `rank` triples of u diag(s) v^T as factors; whole_squares: of the matrix they are to stand for.
Truncated leading(const Svd& svd, std::int64_t rank, double whole_squares) {
  const std::int64_t kept = std::min<std::int64_t>(rank, static_cast<std::int64_t>(svd.s.size()));
  Truncated result;
  result.factors = {.d_out = svd.u.rows, .d_in = svd.v.rows, .rank = rank, .b = {}, .a = {}};
  result.factors.b.assign(static_cast<std::size_t>(svd.u.rows * rank), 0.0F);
  result.factors.a.assign(static_cast<std::size_t>(rank * svd.v.rows), 0.0F);
  double kept_squares = 0;
  for (std::int64_t k = 0; k < kept; ++k) {
    const double s = svd.s[static_cast<std::size_t>(k)];
    kept_squares += s * s;
    for (std::int64_t row = 0; row < svd.u.rows; ++row) {
      result.factors.b[static_cast<std::size_t>(row * rank + k)] = static_cast<float>(svd.u.at(row, k) * s);
    }
    for (std::int64_t column = 0; column < svd.v.rows; ++column) {
      result.factors.a[static_cast<std::size_t>(k * svd.v.rows + column)] = static_cast<float>(svd.v.at(column, k));
    }
  }
  // The tail's own squares where they are known: a difference of two large sums would drown them.
  double lost = 0;
  for (std::size_t k = static_cast<std::size_t>(kept); k < svd.s.size(); ++k) lost += svd.s[k] * svd.s[k];
  const double beyond = whole_squares - kept_squares - lost;
  if (beyond > 1e-12 * whole_squares) lost += beyond;
  result.relative_error = whole_squares > 0 ? std::sqrt(lost / whole_squares) : 0;
  return result;
}

}  // namespace

Truncated truncate(const Factors& whole, std::int64_t rank) {
  Matrix b = widened(whole.b, whole.d_out, whole.rank);
  Matrix a_columns = transposed(widened(whole.a, whole.rank, whole.d_in));  // (D_in, R)
  // A side shorter than the rank needs no QR: it is its own triangle.
  const bool tall_b = whole.d_out >= whole.rank, tall_a = whole.d_in >= whole.rank;
  Qr of_b, of_a;
  if (tall_b) of_b = thin_qr(std::move(b));
  if (tall_a) of_a = thin_qr(std::move(a_columns));
  const Matrix& left = tall_b ? of_b.r : b;
  const Matrix& right = tall_a ? of_a.r : a_columns;
  Svd svd = small_svd(product(left, transposed(right)));
  if (tall_b) svd.u = product(of_b.q, svd.u);
  if (tall_a) svd.v = product(of_a.q, svd.v);
  return leading(svd, rank, sum_of_squares(svd.s));
}

Truncated truncate_dense(const std::vector<float>& matrix, std::int64_t d_out, std::int64_t d_in, std::int64_t rank,
                         StreamKey key) {
  const Matrix whole = widened(matrix, d_out, d_in);
  const double squares = sum_of_squares(whole.values);
  const std::int64_t sampled = rank + kOversampling;
  if (std::min(d_out, d_in) <= std::max(kExactSide, sampled)) return leading(small_svd(whole), rank, squares);
  const Matrix flipped = transposed(whole);
  Matrix range(d_in, sampled);
  for (std::size_t at = 0; at < range.values.size(); ++at) {  // uniform does as well as normal here
    range.values[at] = random_number(key, 0, static_cast<std::int64_t>(at)) / 4294967296.0 - 0.5;
  }
  Matrix basis = thin_qr(product(whole, range)).q;  // (D_out, sampled)
  for (int iteration = 0; iteration < kPowerIterations; ++iteration) {
    basis = thin_qr(product(whole, thin_qr(product(flipped, basis)).q)).q;
  }
  Svd svd = small_svd(product(transposed(basis), whole));  // (sampled, D_in)
  svd.u = product(basis, svd.u);
  return leading(svd, rank, squares);
}

std::vector<float> dense_product(const Factors& factors, double scale) {
  std::vector<float> dense(static_cast<std::size_t>(factors.d_out * factors.d_in));
  parallel_for(factors.d_out, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* out = dense.data() + row * factors.d_in;
      for (std::int64_t k = 0; k < factors.rank; ++k) {
        const float factor = factors.b[static_cast<std::size_t>(row * factors.rank + k)];
        const float* a = factors.a.data() + k * factors.d_in;
        for (std::int64_t column = 0; column < factors.d_in; ++column) out[column] += factor * a[column];
      }
      for (std::int64_t column = 0; column < factors.d_in; ++column) out[column] *= static_cast<float>(scale);
    }
  });
  return dense;
}

}  // namespace skein::merge
