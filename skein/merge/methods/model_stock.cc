// model_stock: base + t * mean of the deltas, where t = N c / (1 + (N - 1) c) and c is the mean cosine between the
// deltas' pairs. arXiv 2403.19522, equation 7 for N models; its authors confirmed the mean over pairs.
#include <algorithm>
#include <cmath>

#include "skein/merge/methods/gram.h"
#include "skein/merge/methods/methods.h"

namespace skein::merge {
namespace {

class StockTensor final : public SpanTensor {
 public:
  static constexpr int kExtraTiles = 2;
  StockTensor(const TensorJob& job, const Workshop& workshop)
      : SpanTensor(job, job.num_models, true, by_rows(job), *workshop.tiles) {}

  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<StockTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) {
    return SpanTensor::working_bytes(job, job.num_models, by_rows(job));
  }

 protected:
  Result<Combination> solve(const Gram& gram) const override {
    return Combination{.coefficients = std::vector<float>(static_cast<std::size_t>(job_.num_models), share(gram)),
                       .base_factor = 1,
                       .from_base = true};
  }

 private:
  static bool by_rows(const TensorJob& job) { return job.parameters->flag("filter_wise") && job.shape.size() > 1; }

  // t / N
  float share(const Gram& gram) const {
    const auto n = static_cast<std::size_t>(job_.num_models);
    double cosines = 0;
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = a + 1; b < n; ++b) {
        const double lengths = std::sqrt(gram[a * n + a]) * std::sqrt(gram[b * n + b]);
        cosines += std::clamp(gram[a * n + b] / std::max(lengths, 1e-6), -1.0, 1.0);
      }
    }
    const auto count = static_cast<double>(n);
    const double c = cosines / (count * (count - 1) / 2);
    const double denominator = 1 + (count - 1) * c;
    // Where opposing deltas allow no finite estimate the base stays.
    return std::abs(denominator) < 1e-6 ? 0.0F : static_cast<float>(c / denominator);
  }
};

}  // namespace

std::vector<MethodInfo> model_stock_methods() {
  return {{.name = "model_stock",
           .title = "Model stock",
           .reference = "https://arxiv.org/abs/2403.19522",
           .min_models = 2,
           .missing = MissingTensor::kBaseOrSkip,
           .parameters = {flag("filter_wise", false, "one angle per row instead of one per tensor")},
           .make = PerTensorMerge<StockTensor>::make}};
}

}  // namespace skein::merge
