#include "skein/merge/methods/matrix_tensor.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/merge/methods/methods.h"

namespace skein::merge {

Singular singular(const Matrix& x) {
  const Eigen::BDCSVD<Eigen::MatrixXf> svd(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {svd.matrixU(), svd.singularValues(), svd.matrixV()};
}

Eigen::MatrixXf polar(const Eigen::MatrixXf& x) {
  const Eigen::BDCSVD<Eigen::MatrixXf> svd(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return svd.matrixU() * svd.matrixV().transpose();
}

bool is_embedding(std::string_view name) {
  for (const std::string_view part : {"embed", "lm_head", "wte", "wpe", "shared.weight", "output.weight"}) {
    if (name == part || (part != "output.weight" && name.find(part) != std::string_view::npos)) return true;
  }
  return false;
}

MatrixTensor::MatrixTensor(const TensorJob& job) : job_(job), averages_(averages(job)) {}

bool MatrixTensor::averages(const TensorJob& job) {
  return job.shape.size() != 2 || job.shape[0] == 0 || job.shape[1] == 0 ||
         (job.parameters->choice("embeddings") == "average" && is_embedding(job.name));
}

std::vector<ParameterSpec> MatrixTensor::parameters() {
  return {per_model_number("weight", 1.0, "factor of this model's delta"),
          number("lambda", 1.0, "factor of the merged delta"),
          choice("embeddings", {"average", "decompose"},
                 "embeddings and output heads: average their deltas, as vectors are, or treat them as matrices")};
}

std::int64_t MatrixTensor::working_bytes(const TensorJob& job, int copies) {
  const std::int64_t elements = layout(Pieces::kTensor, job.shape).num_elements;
  return averages(job) ? 0 : elements * 4 * (job.num_models + 1 + copies);
}

void MatrixTensor::reduce(int, const Block& block, int) {
  const std::int64_t rows = job_.shape[0], columns = job_.shape[1];
  std::vector<Matrix> deltas(static_cast<std::size_t>(job_.num_models), Matrix(rows, columns));
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float base[kTile], delta[kTile];
    for (std::int64_t offset = begin * columns; offset < end * columns; offset += kTile) {
      const std::int64_t n = std::min(kTile, end * columns - offset);
      kernels_.load(block.base, offset, n, base);
      for (int m = 0; m < job_.num_models; ++m) {
        kernels_.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base, delta);
        const auto weight = static_cast<float>(job_.parameters->number("weight", m));
        if (weight != 1) kernels_.scale(delta, n, weight);
        std::copy_n(delta, n, deltas[static_cast<std::size_t>(m)].data() + offset);
      }
    }
  });
  failed_ = !std::all_of(deltas.begin(), deltas.end(), [](const Matrix& delta) { return delta.allFinite(); });
  if (!failed_) result_ = merged(std::move(deltas));
}

Status MatrixTensor::finish(int) {
  if (failed_) {
    return Error{concat(printable(job_.name),
                        ": a delta is not finite, so it has no singular values; a model holds NaN or infinity")};
  }
  return {};
}

void MatrixTensor::apply(const Block& block, const Output& output, int) {
  if (averages_) return write_average(block, output);
  const auto lambda = static_cast<float>(job_.parameters->number("lambda"));
  parallel_for(block.count, 16 * kTile, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float base[kTile], sum[kTile];
    for (std::int64_t offset = begin; offset < end; offset += kTile) {
      const std::int64_t n = std::min(kTile, end - offset);
      kernels_.load(block.base, offset, n, base);
      std::copy_n(result_.data() + offset, n, sum);
      std::fill(sum + n, sum + padded(n), 0.0F);
      kernels_.scale(sum, n, lambda);
      kernels_.add(sum, n, base);
      kernels_.store(sum, n, output, offset);
    }
  });
}

void MatrixTensor::write_average(const Block& block, const Output& output) const {
  alignas(64) float base[kTile], sum[kTile];
  for (std::int64_t offset = 0; offset < block.count; offset += kTile) {
    const std::int64_t n = std::min(kTile, block.count - offset);
    kernels_.load(block.base, offset, n, base);
    std::fill_n(sum, padded(n), 0.0F);
    for (int m = 0; m < job_.num_models; ++m) {
      kernels_.add_scaled_delta(block.models[static_cast<std::size_t>(m)], offset, n, base,
                                static_cast<float>(job_.parameters->number("weight", m)), sum);
    }
    kernels_.divide(sum, n, static_cast<float>(job_.num_models));
    kernels_.scale(sum, n, static_cast<float>(job_.parameters->number("lambda")));
    kernels_.add(sum, n, base);
    kernels_.store(sum, n, output, offset);
  }
}

}  // namespace skein::merge
