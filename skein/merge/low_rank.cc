#include "skein/merge/low_rank.h"

#include <algorithm>
#include <cmath>

#include <Eigen/Dense>

#include "skein/base/thread_pool.h"

namespace skein::merge {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr std::int64_t kExactSide = 384;
constexpr std::int64_t kOversampling = 16;
constexpr int kPowerIterations = 4;

MatrixXd widened(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const RowMajor>(values.data(), rows, cols).cast<double>();
}

// matrix = q r with orthonormal columns of q; rows >= cols.
struct ThinQr {
  MatrixXd q, r;
};
ThinQr thin_qr(const MatrixXd& matrix) {
  const Eigen::HouseholderQR<MatrixXd> qr(matrix);
  return {qr.householderQ() * MatrixXd::Identity(matrix.rows(), matrix.cols()),
          qr.matrixQR().topRows(matrix.cols()).triangularView<Eigen::Upper>()};
}

struct Svd {
  MatrixXd u;  // (D_out, k)
  VectorXd s;  // falling
  MatrixXd v;  // (D_in, k)
};
Svd svd_of(const MatrixXd& matrix) {
  const Eigen::BDCSVD<MatrixXd> svd(matrix, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {svd.matrixU(), svd.singularValues(), svd.matrixV()};
}

// The leading `rank` triples as factors; whole_squares: of the matrix they are to stand for.
Truncated leading(const Svd& svd, std::int64_t rank, double whole_squares) {
  const std::int64_t kept = std::min<std::int64_t>(rank, svd.s.size());
  Truncated result;
  result.factors = {.d_out = svd.u.rows(), .d_in = svd.v.rows(), .rank = rank, .b = {}, .a = {}};
  result.factors.b.assign(static_cast<std::size_t>(svd.u.rows() * rank), 0.0F);
  result.factors.a.assign(static_cast<std::size_t>(rank * svd.v.rows()), 0.0F);
  for (std::int64_t k = 0; k < kept; ++k) {
    for (std::int64_t row = 0; row < svd.u.rows(); ++row) {
      result.factors.b[static_cast<std::size_t>(row * rank + k)] = static_cast<float>(svd.u(row, k) * svd.s(k));
    }
    for (std::int64_t column = 0; column < svd.v.rows(); ++column) {
      result.factors.a[static_cast<std::size_t>(k * svd.v.rows() + column)] = static_cast<float>(svd.v(column, k));
    }
  }
  // The tail's own squares where they are known: a difference of two large sums would drown them.
  double lost = svd.s.tail(svd.s.size() - kept).squaredNorm();
  const double beyond = whole_squares - svd.s.squaredNorm();
  if (beyond > 1e-12 * whole_squares) lost += beyond;
  result.relative_error = whole_squares > 0 ? std::sqrt(lost / whole_squares) : 0;
  return result;
}

}  // namespace

Truncated truncate(const Factors& whole, std::int64_t rank) {
  const MatrixXd b = widened(whole.b, whole.d_out, whole.rank);
  const MatrixXd a = widened(whole.a, whole.rank, whole.d_in).transpose();  // (D_in, R)
  // A side shorter than the rank needs no QR: it is its own triangle.
  const bool tall_b = whole.d_out >= whole.rank, tall_a = whole.d_in >= whole.rank;
  const ThinQr of_b = tall_b ? thin_qr(b) : ThinQr{MatrixXd(), b};
  const ThinQr of_a = tall_a ? thin_qr(a) : ThinQr{MatrixXd(), a};
  Svd svd = svd_of(of_b.r * of_a.r.transpose());
  if (tall_b) svd.u = of_b.q * svd.u;
  if (tall_a) svd.v = of_a.q * svd.v;
  return leading(svd, rank, svd.s.squaredNorm());
}

Truncated truncate_dense(const std::vector<float>& matrix, std::int64_t d_out, std::int64_t d_in, std::int64_t rank,
                         StreamKey key) {
  const MatrixXd whole = widened(matrix, d_out, d_in);
  const std::int64_t sampled = rank + kOversampling;
  if (std::min(d_out, d_in) <= std::max(kExactSide, sampled)) return leading(svd_of(whole), rank, whole.squaredNorm());
  MatrixXd range(d_in, sampled);
  for (std::int64_t at = 0; at < range.size(); ++at) {  // uniform does as well as normal here
    range.data()[at] = random_number(key, 0, at) / 4294967296.0 - 0.5;
  }
  MatrixXd basis = thin_qr(whole * range).q;  // (D_out, sampled)
  for (int iteration = 0; iteration < kPowerIterations; ++iteration) {
    basis = thin_qr(whole * thin_qr(whole.transpose() * basis).q).q;
  }
  Svd svd = svd_of(basis.transpose() * whole);  // (sampled, D_in)
  svd.u = basis * svd.u;
  return leading(svd, rank, whole.squaredNorm());
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
