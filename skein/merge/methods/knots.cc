#include "skein/merge/methods/knots.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "skein/merge/methods/methods.h"

namespace skein::merge {
namespace {

// Singular values below this share of the largest are rounding: f32 deltas carry no more.
constexpr double kLeastShare = 1e-6;

struct LeftBasis {
  MatrixF64 vectors;  // (m, k)
  VectorF64 values;   // (k), descending
};

// Of X X^T, where X is the deltas side by side.
LeftBasis left_basis(const MatrixF64& gram) {
  const Eigen::SelfAdjointEigenSolver<MatrixF64> eigen(gram);
  const Eigen::Index n = gram.rows();
  const double largest = std::sqrt(std::max(eigen.eigenvalues()[n - 1], 0.0));
  Eigen::Index kept = 0;
  while (kept < n && std::sqrt(std::max(eigen.eigenvalues()[n - 1 - kept], 0.0)) > kLeastShare * largest) ++kept;
  LeftBasis basis{MatrixF64(n, kept), VectorF64(kept)};
  for (Eigen::Index i = 0; i < kept; ++i) {
    basis.vectors.col(i) = eigen.eigenvectors().col(n - 1 - i);
    basis.values[i] = std::sqrt(eigen.eigenvalues()[n - 1 - i]);
  }
  return basis;
}

void trim(MatrixF64& block, double density) {
  const auto n = static_cast<std::size_t>(block.size());
  if (density >= 1 || n == 0) return;
  const std::size_t kept =
      density <= 0 ? 0 : std::max<std::size_t>(1, static_cast<std::size_t>(density * static_cast<double>(n)));
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(block.data()[a]) > std::abs(block.data()[b]); });
  for (std::size_t r = kept; r < n; ++r) block.data()[order[r]] = 0;
}

}  // namespace

MatrixF64 merge_blocks(const std::vector<MatrixF64>& blocks, const KnotsRule& rule) {
  MatrixF64 merged = MatrixF64::Zero(blocks[0].rows(), blocks[0].cols());
  if (rule.inner == KnotsRule::Inner::kAverage) {
    for (const MatrixF64& block : blocks) merged += block;
    return merged / static_cast<double>(blocks.size());
  }
  std::vector<MatrixF64> trimmed = blocks;
  for (std::size_t e = 0; e < trimmed.size(); ++e) trim(trimmed[e], rule.densities[e]);
  for (Eigen::Index i = 0; i < merged.size(); ++i) {
    double votes = 0, sum = 0;
    int agreeing = 0;
    for (const MatrixF64& block : trimmed) votes += block.data()[i];
    for (const MatrixF64& block : trimmed) {
      const double value = block.data()[i];
      if (!(votes >= 0 ? value > 0 : value < 0)) continue;
      sum += value;
      ++agreeing;
    }
    merged.data()[i] = agreeing > 0 ? sum / agreeing : 0;
  }
  return merged;
}

Matrix knots(const std::vector<Matrix>& deltas, const KnotsRule& rule) {
  const Eigen::Index rows = deltas[0].rows();
  MatrixF64 gram = MatrixF64::Zero(rows, rows);
  for (const Matrix& delta : deltas) {
    const MatrixF64 wide = delta.cast<double>();
    gram.noalias() += wide * wide.transpose();
  }
  const LeftBasis basis = left_basis(gram);
  if (basis.values.size() == 0) return Matrix::Zero(rows, deltas[0].cols());
  std::vector<MatrixF64> blocks;
  for (const Matrix& delta : deltas) {
    blocks.push_back(basis.values.cwiseInverse().asDiagonal() * (basis.vectors.transpose() * delta.cast<double>()));
  }
  const MatrixF64 merged = basis.vectors * (basis.values.asDiagonal() * merge_blocks(blocks, rule));
  return merged.cast<float>();
}

LowRank knots(std::span<const LowRank> adapters, const KnotsRule& rule) {
  const Eigen::Index rows = adapters[0].b.rows(), columns = adapters[0].a.cols();
  Eigen::Index rank = 0;
  for (const LowRank& adapter : adapters) rank += adapter.b.cols();
  // All B side by side = Q R. In Q's basis the delta of an adapter is R_e A_e, at most (rank, inputs).
  MatrixF64 all_b(rows, rank);
  rank = 0;
  for (const LowRank& adapter : adapters) {
    all_b.middleCols(rank, adapter.b.cols()) = adapter.b.cast<double>();
    rank += adapter.b.cols();
  }
  const Eigen::HouseholderQR<MatrixF64> qr(all_b);
  const Eigen::Index inner = std::min(rows, rank);
  const MatrixF64 q = qr.householderQ() * MatrixF64::Identity(rows, inner);
  const MatrixF64 r = q.transpose() * all_b;  // (inner, rank)
  std::vector<MatrixF64> small;
  MatrixF64 gram = MatrixF64::Zero(inner, inner);
  Eigen::Index first = 0;
  for (const LowRank& adapter : adapters) {
    small.push_back(r.middleCols(first, adapter.b.cols()) * adapter.a.cast<double>());
    gram.noalias() += small.back() * small.back().transpose();
    first += adapter.b.cols();
  }
  const LeftBasis basis = left_basis(gram);
  if (basis.values.size() == 0) return {Matrix::Zero(rows, 1), Matrix::Zero(1, columns)};
  for (MatrixF64& block : small) {
    block = basis.values.cwiseInverse().asDiagonal() * (basis.vectors.transpose() * block);
  }
  const MatrixF64 b = q * basis.vectors * basis.values.asDiagonal();
  return {b.cast<float>(), merge_blocks(small, rule).cast<float>()};
}

namespace {

class KnotsTensor final : public MatrixTensor {
 public:
  static constexpr int kCopies = 6;
  using MatrixTensor::MatrixTensor;

 protected:
  Matrix merged(std::vector<Matrix> deltas) const override {
    KnotsRule rule;
    rule.inner = job_.parameters->choice("inner") == "ties" ? KnotsRule::Inner::kTies : KnotsRule::Inner::kAverage;
    for (int m = 0; m < job_.num_models; ++m) rule.densities.push_back(job_.parameters->number("density", m));
    return knots(deltas, rule);
  }
};

}  // namespace

std::vector<MethodInfo> knots_methods() {
  std::vector<ParameterSpec> parameters = MatrixTensor::parameters();
  parameters.push_back(choice("inner", {"ties", "average"}, "how the aligned right blocks are merged"));
  parameters.push_back(per_model_number("density", 1.0, "share of a right block that TIES keeps"));
  return {{.name = "knots",
           .title = "KnOTS",
           .reference = "https://arxiv.org/abs/2410.19735",
           .whole_tensors = true,
           .parameters = std::move(parameters),
           .make = MatrixModel<KnotsTensor>::make}};
}

}  // namespace skein::merge
