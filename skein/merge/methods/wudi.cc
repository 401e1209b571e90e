// wudi: arXiv 2503.08099 asks, per linear layer, for the delta that minimises
//   sum_e ||(tau - tau_e) tau_e^T||^2 / ||tau_e||^2
// and takes a few hundred steps of Adam from sum tau_e. The minimiser has a closed form, which is what is computed
// here:
//   tau = (sum tau_e G_e) (sum G_e)^+  with  G_e = tau_e^T tau_e / ||tau_e||^2   (inputs x inputs)
// Eigenvalues below `cutoff` times the largest count as 0: there tau follows no constraint and stays 0.
#include <algorithm>

#include "skein/merge/methods/matrix_tensor.h"
#include "skein/merge/methods/methods.h"

namespace skein::merge {
namespace {

class WudiTensor final : public MatrixTensor {
 public:
  static constexpr int kCopies = 4;
  using MatrixTensor::MatrixTensor;

 protected:
  Matrix merged(std::vector<Matrix> deltas) const override {
    const Eigen::Index columns = deltas[0].cols();
    MatrixF64 grams = MatrixF64::Zero(columns, columns);
    MatrixF64 targets = MatrixF64::Zero(deltas[0].rows(), columns);
    for (const Matrix& delta : deltas) {
      const MatrixF64 tau = delta.cast<double>();
      const double square = tau.squaredNorm();
      if (square == 0) continue;  // a model that did not move asks for nothing
      const MatrixF64 gram = tau.transpose() * tau / square;
      grams += gram;
      targets.noalias() += tau * gram;
    }
    const Eigen::SelfAdjointEigenSolver<MatrixF64> eigen(grams);
    const VectorF64 values = eigen.eigenvalues();
    const double least = job_.parameters->number("cutoff") * std::max(values.maxCoeff(), 0.0);
    VectorF64 inverse(values.size());
    for (Eigen::Index i = 0; i < values.size(); ++i) inverse[i] = values[i] > least ? 1 / values[i] : 0;
    const MatrixF64 tau = targets * eigen.eigenvectors() * inverse.asDiagonal() * eigen.eigenvectors().transpose();
    return tau.cast<float>();
  }
};

}  // namespace

std::vector<MethodInfo> wudi_methods() {
  std::vector<ParameterSpec> parameters = MatrixTensor::parameters();
  parameters.push_back(
      number("cutoff", 1e-8, "eigenvalues of the summed Grams below this share of the largest count as 0"));
  return {{.name = "wudi",
           .title = "WUDI",
           .reference = "https://arxiv.org/abs/2503.08099",
           .whole_tensors = true,
           .parameters = std::move(parameters),
           .make = MatrixModel<WudiTensor>::make}};
}

}  // namespace skein::merge
