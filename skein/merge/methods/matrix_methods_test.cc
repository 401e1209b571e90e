// The methods on whole matrices against their definitions, in f64 and by Jacobi's method.
#include <gtest/gtest.h>

#include <cmath>

#include "skein/merge/methods/knots.h"
#include "skein/merge/methods/test_merge.h"

namespace skein::merge {
namespace {

struct Wide {
  MatrixF64 left, right;
  VectorF64 values;
};

Wide svd(const MatrixF64& x) {
  const Eigen::JacobiSVD<MatrixF64> parts(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {parts.matrixU(), parts.matrixV(), parts.singularValues()};
}

MatrixF64 nearest_orthonormal(const MatrixF64& x) {
  const Wide parts = svd(x);
  return parts.left * parts.right.transpose();
}

// Deltas of about equal size with well separated singular values, so that f32 vectors are good to about 1e-5.
struct Deltas {
  TestTensor tensor;
  std::vector<MatrixF64> wide;

  Deltas(Eigen::Index rows, Eigen::Index columns, int num_models, unsigned seed = 11) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    const auto random = [&](Eigen::Index m, Eigen::Index n) {
      return MatrixF64(MatrixF64::NullaryExpr(m, n, [&] { return normal(generator); }));
    };
    tensor.shape = {rows, columns};
    tensor.base.assign(static_cast<std::size_t>(rows * columns), 0.0F);
    const Eigen::Index rank = std::min(rows, columns);
    for (int e = 0; e < num_models; ++e) {
      VectorF64 values(rank);
      for (Eigen::Index i = 0; i < rank; ++i) values[i] = std::pow(0.8, static_cast<double>(i)) * (1 + 0.1 * e);
      const Matrix delta = (nearest_orthonormal(random(rows, rank)) * values.asDiagonal() *
                            nearest_orthonormal(random(columns, rank)).transpose())
                               .cast<float>();
      tensor.models.emplace_back(delta.data(), delta.data() + delta.size());
      wide.push_back(delta.cast<double>());
    }
  }

  void expect_merged(const TestMerge& merge, const MatrixF64& want, double tolerance = 2e-5) const {
    const std::vector<float> got = merge.run(tensor);
    const Matrix matrix = Eigen::Map<const Matrix>(got.data(), want.rows(), want.cols());
    EXPECT_LT((matrix.cast<double>() - want).cwiseAbs().maxCoeff(), tolerance)
        << merge.method << " " << to_string(tensor.shape);
  }
  MatrixF64 sum() const {
    MatrixF64 sum = wide[0];
    for (std::size_t e = 1; e < wide.size(); ++e) sum += wide[e];
    return sum;
  }
};

const std::vector<std::pair<Eigen::Index, Eigen::Index>> kSizes = {{12, 20}, {21, 13}, {9, 9}};

TEST(TaskSingularVectors, AreTheFirstOfEachMadeOrthonormal) {
  for (const auto& [rows, columns] : kSizes) {
    const Deltas deltas(rows, columns, 3);
    const Eigen::Index kept = std::min(rows, columns) / 3;
    MatrixF64 left(rows, 3 * kept), right(columns, 3 * kept);
    VectorF64 values(3 * kept);
    for (Eigen::Index e = 0; e < 3; ++e) {
      const Wide parts = svd(deltas.wide[static_cast<std::size_t>(e)]);
      left.middleCols(e * kept, kept) = parts.left.leftCols(kept);
      right.middleCols(e * kept, kept) = parts.right.leftCols(kept);
      values.segment(e * kept, kept) = parts.values.head(kept);
    }
    deltas.expect_merged({"tsv_m", {}, {}},
                         nearest_orthonormal(left) * values.asDiagonal() * nearest_orthonormal(right).transpose());
  }
}

TEST(Isotropic, SumHasItsMeanSingularValueEverywhere) {
  for (const auto& [rows, columns] : kSizes) {
    const Deltas deltas(rows, columns, 3);
    const Wide sum = svd(deltas.sum());
    deltas.expect_merged({"iso_c", {{"lambda", 1.5}}, {}}, 1.5 * sum.values.mean() * sum.left * sum.right.transpose());
  }
}

TEST(Isotropic, TasksShareWhatTheCommonSpaceLeaves) {
  for (const auto& [rows, columns] : kSizes) {
    const Deltas deltas(rows, columns, 2);
    const Eigen::Index rank = std::min(rows, columns);
    const Eigen::Index first = rank * 8 / 10;
    const auto own = static_cast<Eigen::Index>(std::nearbyint(static_cast<double>(rank - first) / 2));
    const Eigen::Index common = rank - 2 * own;
    const Wide sum = svd(deltas.sum());
    const MatrixF64 shared = sum.left.leftCols(common);
    MatrixF64 left(rows, rank), right(columns, rank);
    double values = sum.values.head(common).sum();
    left.leftCols(common) = shared;
    right.leftCols(common) = sum.right.leftCols(common);
    for (Eigen::Index e = 0; e < 2; ++e) {
      const MatrixF64& delta = deltas.wide[static_cast<std::size_t>(e)];
      const Wide parts = svd(delta - shared * shared.transpose() * delta);
      left.middleCols(common + e * own, own) = parts.left.leftCols(own);
      right.middleCols(common + e * own, own) = parts.right.leftCols(own);
      values += parts.values.head(own).sum();
    }
    // The order of columns does not matter to a polar factor's product.
    deltas.expect_merged(
        {"iso_cts", {}, {}},
        values / static_cast<double>(rank) * nearest_orthonormal(left) * nearest_orthonormal(right).transpose(), 1e-4);
  }
}

TEST(Wudi, LeavesNoGradient) {
  for (const auto& [rows, columns] : {std::pair<Eigen::Index, Eigen::Index>{20, 12}, {9, 9}}) {
    const Deltas deltas(rows, columns, 3);
    const std::vector<float> got = TestMerge{"wudi", {}, {}}.run(deltas.tensor);
    const MatrixF64 tau = Eigen::Map<const Matrix>(got.data(), rows, columns).cast<double>();
    MatrixF64 gradient = MatrixF64::Zero(rows, columns), at_sum = gradient;
    for (const MatrixF64& delta : deltas.wide) {
      const MatrixF64 gram = delta.transpose() * delta / delta.squaredNorm();
      gradient += (tau - delta) * gram;
      at_sum += (deltas.sum() - delta) * gram;
    }
    EXPECT_LT(gradient.norm(), 1e-6 * at_sum.norm());
  }
}

// Per element of V: trim, elect by the sum, mean of the agreeing.
TEST(Knots, MergesTheRightBlocksOfTheJointDecomposition) {
  for (const auto& [rows, columns] : {std::pair<Eigen::Index, Eigen::Index>{8, 20}, {21, 13}}) {
    const Deltas deltas(rows, columns, 3);
    MatrixF64 joint(rows, 3 * columns);
    for (Eigen::Index e = 0; e < 3; ++e)
      joint.middleCols(e * columns, columns) = deltas.wide[static_cast<std::size_t>(e)];
    const Wide parts = svd(joint);
    const MatrixF64 right = parts.right.transpose();  // (k, 3 columns)
    MatrixF64 average = MatrixF64::Zero(right.rows(), columns), ties = average;
    for (Eigen::Index i = 0; i < right.rows(); ++i) {
      for (Eigen::Index j = 0; j < columns; ++j) {
        const double v[3] = {right(i, j), right(i, columns + j), right(i, 2 * columns + j)};
        const double sum = v[0] + v[1] + v[2];
        double kept = 0;
        int count = 0;
        for (const double x : v) {
          if (x * sum > 0) kept += x, ++count;
        }
        average(i, j) = sum / 3;
        ties(i, j) = kept / count;
      }
    }
    const MatrixF64 left = parts.left * parts.values.asDiagonal();
    deltas.expect_merged({"knots", {{"inner", std::string("average")}}, {}}, left * average);
    deltas.expect_merged({"knots", {}, {}}, left * ties);
  }
}

TEST(Knots, TrimsEachRightBlockByMagnitude) {
  const std::vector<MatrixF64> blocks = {MatrixF64{{4, -3}, {1, 0.5}}, MatrixF64{{-1, -2}, {3, 0.25}}};
  const MatrixF64 merged = merge_blocks(blocks, {KnotsRule::Inner::kTies, {0.5, 0.5}});
  EXPECT_EQ(merged, (MatrixF64{{4, -2.5}, {3, 0}}));
}

TEST(MatrixMethods, AverageEmbeddingsUnlessToldToDecomposeThem) {
  EXPECT_TRUE(is_embedding("model.embed_tokens.weight"));
  EXPECT_TRUE(is_embedding("lm_head.weight"));
  EXPECT_TRUE(is_embedding("transformer.wte.weight"));
  EXPECT_FALSE(is_embedding("model.layers.0.mlp.down_proj.weight"));
  EXPECT_FALSE(is_embedding("encoder.layer.0.output.weight"));
}

}  // namespace
}  // namespace skein::merge
