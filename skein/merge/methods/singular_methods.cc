// Methods on the singular values of the deltas. Tensors that are not matrices, and embeddings, are averaged.
//   tsv_m    task singular vectors, arXiv 2412.00081: the first min(m, n) / E directions of every delta, side by side,
//            made orthonormal (polar factor), with their own singular values
//   iso_c    isotropic merging, arXiv 2502.04959: the sum of the deltas with all singular values set to their mean
//   iso_cts  the same, where part of the directions comes from single deltas, outside the sum's first ones
#include <algorithm>
#include <cmath>

#include "skein/base/thread_pool.h"
#include "skein/merge/methods/matrix_tensor.h"
#include "skein/merge/methods/methods.h"

namespace skein::merge {
namespace {

Matrix sum_of(const std::vector<Matrix>& deltas) {
  Matrix sum = deltas[0];
  for (std::size_t e = 1; e < deltas.size(); ++e) sum += deltas[e];
  return sum;
}

// Every delta's decomposition, on as many threads as there are.
std::vector<Singular> decomposed(const std::vector<Matrix>& deltas) {
  std::vector<Singular> parts(deltas.size());
  parallel_for(static_cast<std::int64_t>(deltas.size()), 1, [&](std::int64_t begin, std::int64_t) {
    parts[static_cast<std::size_t>(begin)] = singular(deltas[static_cast<std::size_t>(begin)]);
  });
  return parts;
}

// Both polar factors.
void orthogonalise(Eigen::MatrixXf& left, Eigen::MatrixXf& right) {
  parallel_for(2, 1, [&](std::int64_t begin, std::int64_t) {
    Eigen::MatrixXf& side = begin == 0 ? left : right;
    side = polar(side);
  });
}

class TsvTensor final : public MatrixTensor {
 public:
  static constexpr int kCopies = 4;
  using MatrixTensor::MatrixTensor;

 protected:
  Matrix merged(std::vector<Matrix> deltas) const override {
    const Eigen::Index rows = deltas[0].rows(), columns = deltas[0].cols();
    const auto num_models = static_cast<Eigen::Index>(deltas.size());
    const Eigen::Index kept = std::max<Eigen::Index>(1, std::min(rows, columns) / num_models);
    const std::vector<Singular> parts = decomposed(deltas);
    Eigen::MatrixXf left(rows, kept * num_models), right(columns, kept * num_models);
    Eigen::VectorXf values(kept * num_models);
    for (Eigen::Index e = 0; e < num_models; ++e) {
      const Singular& part = parts[static_cast<std::size_t>(e)];
      left.middleCols(e * kept, kept) = part.left.leftCols(kept);
      right.middleCols(e * kept, kept) = part.right.leftCols(kept);
      values.segment(e * kept, kept) = part.values.head(kept);
    }
    orthogonalise(left, right);
    return left * values.asDiagonal() * right.transpose();
  }
};

class IsoTensor final : public MatrixTensor {
 public:
  static constexpr int kCopies = 3;
  using MatrixTensor::MatrixTensor;

 protected:
  Matrix merged(std::vector<Matrix> deltas) const override {
    const Singular sum = singular(sum_of(deltas));
    return sum.values.mean() * (sum.left * sum.right.transpose());
  }
};

class IsoTaskTensor final : public MatrixTensor {
 public:
  static constexpr int kCopies = 6;
  using MatrixTensor::MatrixTensor;

 protected:
  Matrix merged(std::vector<Matrix> deltas) const override {
    const Eigen::Index rows = deltas[0].rows(), columns = deltas[0].cols(), rank = std::min(rows, columns);
    const auto num_models = static_cast<Eigen::Index>(deltas.size());
    const Singular sum = singular(sum_of(deltas));
    // As the authors' code has it: the tasks share the rest evenly, and the common part takes what that leaves over.
    const auto at_first =
        static_cast<Eigen::Index>(static_cast<double>(rank) * job_.parameters->number("common_space_fraction"));
    const auto per_task =
        static_cast<Eigen::Index>(std::nearbyint(static_cast<double>(rank - at_first) / static_cast<double>(num_models)));
    const Eigen::Index own = std::min(per_task, rank / num_models), common = rank - own * num_models;
    const Eigen::MatrixXf shared = sum.left.leftCols(common);
    for (Matrix& delta : deltas) delta -= shared * (shared.transpose() * delta);
    const std::vector<Singular> parts = decomposed(deltas);
    Eigen::MatrixXf left(rows, rank), right(columns, rank);
    Eigen::VectorXf values(rank);
    for (Eigen::Index e = 0; e < num_models; ++e) {
      const Singular& part = parts[static_cast<std::size_t>(e)];
      left.middleCols(e * own, own) = part.left.leftCols(own);
      right.middleCols(e * own, own) = part.right.leftCols(own);
      values.segment(e * own, own) = part.values.head(own);
    }
    left.rightCols(common) = shared;
    right.rightCols(common) = sum.right.leftCols(common);
    values.tail(common) = sum.values.head(common);
    orthogonalise(left, right);
    return values.mean() * (left * right.transpose());
  }
};

}  // namespace

std::vector<MethodInfo> singular_methods() {
  const auto method = [](std::string name, std::string title, std::string paper, decltype(MethodInfo::make) make) {
    return MethodInfo{.name = std::move(name),
                      .title = std::move(title),
                      .reference = std::move(paper),
                      .whole_tensors = true,
                      .parameters = MatrixTensor::parameters(),
                      .make = make};
  };
  std::vector<MethodInfo> methods = {
      method("tsv_m", "Task singular vectors", "https://arxiv.org/abs/2412.00081", MatrixModel<TsvTensor>::make),
      method("iso_c", "Isotropic merging, common space", "https://arxiv.org/abs/2502.04959",
             MatrixModel<IsoTensor>::make),
      method("iso_cts", "Isotropic merging, common and task-specific spaces", "https://arxiv.org/abs/2502.04959",
             MatrixModel<IsoTaskTensor>::make)};
  methods.back().parameters.push_back(
      number("common_space_fraction", 0.8, "share of the directions that comes from the sum of the deltas"));
  return methods;
}

}  // namespace skein::merge
