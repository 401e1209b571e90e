// What methods on whole matrices share: the deltas as matrices, the average where a tensor is not to be decomposed, and
// a result that is computed in one pass and written in the next.
//
// Eigen does the linear algebra, one thread per decomposition, compiled for the processor's baseline: the same bits for
// any number of threads and on any x86-64 (docs/design/libraries.md).
#pragma once

#include <memory>
#include <vector>

// Eigen's own loops look uninitialised to GCC 12 where a size could be 0.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <Eigen/Dense>
#pragma GCC diagnostic pop

#include "skein/merge/kernels/tiles.h"
#include "skein/merge/method.h"

namespace skein::merge {

// Row-major, as checkpoints are: (outputs, inputs) of a linear layer.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixF64 = Eigen::MatrixXd;
using VectorF64 = Eigen::VectorXd;

// X = left diag(values) right^T, values descending.
struct Singular {
  Eigen::MatrixXf left;    // (m, k)
  Eigen::VectorXf values;  // (k)
  Eigen::MatrixXf right;   // (n, k)
};
Singular singular(const Matrix& x);
// The nearest matrix with orthonormal columns: P Q^T of the decomposition P diag Q^T.
Eigen::MatrixXf polar(const Eigen::MatrixXf& x);

// A matrix that is a table of vectors rather than a linear map, by its name: embeddings and output heads.
bool is_embedding(std::string_view name);

class MatrixTensor : public TensorMerge {
 public:
  explicit MatrixTensor(const TensorJob& job);

  Pieces pieces() const override { return averages_ ? Pieces::kBlocks : Pieces::kTensor; }
  int num_passes() const override { return averages_ ? 0 : 1; }
  void reduce(int pass, const Block& block, int worker) override;
  Status finish(int pass) override;
  void apply(const Block& block, const Output& output, int worker) override;

  // For `copies` matrices of f32 beside the deltas.
  static std::int64_t working_bytes(const TensorJob& job, int copies);
  static std::vector<ParameterSpec> parameters();

 protected:
  // The merged delta, before lambda. Deltas are weighted; all are finite, none of the dimensions is 0.
  virtual Matrix merged(std::vector<Matrix> deltas) const = 0;

  const TensorJob& job_;

 private:
  static bool averages(const TensorJob& job);
  void write_average(const Block& block, const Output& output) const;

  bool averages_;
  Matrix result_;
  bool failed_ = false;
  TileKernels kernels_ = tile_kernels();
};

// A ModelMerge of such tensors.
template <class Tensor>
class MatrixModel final : public ModelMerge {
 public:
  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return std::unique_ptr<TensorMerge>(std::make_unique<Tensor>(job));
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    return MatrixTensor::working_bytes(job, Tensor::kCopies);
  }
  static Result<std::unique_ptr<ModelMerge>> make(const MethodInfo&, std::span<const TensorJob>, int) {
    return std::unique_ptr<ModelMerge>(std::make_unique<MatrixModel>());
  }
};

}  // namespace skein::merge
