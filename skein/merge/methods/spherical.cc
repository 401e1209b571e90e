// Interpolation on the sphere: slerp, nuslerp (flattened or by rows), multislerp, karcher. All results are combinations
// of their inputs with coefficients that follow from the inputs' dot products.
#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/merge/methods/gram.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/nuslerp_columns.h"

namespace skein::merge {
namespace {

// ---- slerp ----------------------------------------------------------------------------------------------------------

class SlerpTensor final : public SpanTensor {
 public:
  static constexpr int kExtraTiles = 2;
  SlerpTensor(const TensorJob& job, const Workshop& workshop)
      : SpanTensor(job, 2, false, false, *workshop.tiles), t_(job.parameters->number("t")) {}
  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<SlerpTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) { return SpanTensor::working_bytes(job, 2, false); }

 protected:
  // The base and the model, as the two inputs.
  Block inputs_of(const Block& block) const override {
    thread_local Piece pieces[2];
    pieces[0] = block.base;
    pieces[1] = block.models[0];
    Block both = block;
    both.models = pieces;
    both.base = {};
    return both;
  }
  Result<Combination> solve(const Gram& gram) const override {
    const double a = std::sqrt(gram[0]), b = std::sqrt(gram[3]);
    // A vector of no length is left as it is.
    const double dot = std::clamp(gram[1] / ((a > 1e-8 ? a : 1) * (b > 1e-8 ? b : 1)), -1.0, 1.0);
    if (std::abs(dot) > 0.9995)
      return Combination{.coefficients = {static_cast<float>(1 - t_), static_cast<float>(t_)}};
    const double theta = std::acos(dot), sine = std::sin(theta);
    return Combination{.coefficients = {static_cast<float>(std::sin((1 - t_) * theta) / sine),
                                        static_cast<float>(std::sin(t_ * theta) / sine)}};
  }

 private:
  double t_;
};

// ---- nuslerp --------------------------------------------------------------------------------------------------------

class NuslerpTensor final : public SpanTensor {
 public:
  static constexpr int kExtraTiles = 1;
  NuslerpTensor(const TensorJob& job, double t, bool by_rows, const Workshop& workshop)
      : SpanTensor(job, 2, job.has_base, by_rows, *workshop.tiles), t_(t) {}

  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    const MethodParameters& parameters = *job.parameters;
    const double first = parameters.number("weight", 0), second = parameters.number("weight", 1);
    const double sum = first + second;
    const double t = std::abs(sum) < 1e-6 ? 0.5 : second / sum;
    const bool flat = parameters.flag("nuslerp_flatten") || job.shape.size() < 2;
    if (!flat && parameters.flag("nuslerp_row_wise")) return nuslerp_along_first_axis(job, t);
    return std::unique_ptr<TensorMerge>(std::make_unique<NuslerpTensor>(job, t, !flat, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) { return SpanTensor::working_bytes(job, 2, true); }

 protected:
  Result<Combination> solve(const Gram& gram) const override {
    const auto [a, b] = nuslerp_coefficients(t_, gram[0], gram[1], gram[3]);
    return Combination{.coefficients = {static_cast<float>(a), static_cast<float>(b)},
                       .base_factor = job_.has_base ? 1.0F : 0.0F,
                       .from_base = job_.has_base};
  }

 private:
  double t_;
};

// ---- multislerp -----------------------------------------------------------------------------------------------------

double norm_of(const std::vector<double>& c, const Gram& gram) {
  double sum = 0;
  for (std::size_t a = 0; a < c.size(); ++a) {
    for (std::size_t b = 0; b < c.size(); ++b) sum += c[a] * c[b] * gram[a * c.size() + b];
  }
  return std::sqrt(std::max(0.0, sum));
}

double dot_with(const std::vector<double>& c, std::size_t input, const Gram& gram) {
  double sum = 0;
  for (std::size_t a = 0; a < c.size(); ++a) sum += c[a] * gram[a * c.size() + input];
  return sum;
}

Combination combination_of(const std::vector<double>& coefficients, bool from_base) {
  Combination combination{.base_factor = from_base ? 1.0F : 0.0F, .from_base = from_base};
  for (const double c : coefficients) combination.coefficients.push_back(static_cast<float>(c));
  return combination;
}

class MultislerpTensor final : public SpanTensor {
 public:
  static constexpr int kExtraTiles = 2;
  MultislerpTensor(const TensorJob& job, const Workshop& workshop)
      : SpanTensor(job, job.num_models, job.has_base, false, *workshop.tiles) {}
  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<MultislerpTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) {
    return SpanTensor::working_bytes(job, job.num_models, false);
  }

 protected:
  Result<Combination> solve(const Gram& gram) const override {
    const auto n = static_cast<std::size_t>(job_.num_models);
    if (n == 1) return Combination{.coefficients = {1}, .base_factor = 0, .from_base = false};  // that model, as it is
    const double eps = job_.parameters->number("eps");
    std::vector<double> weights;
    double sum = 0;
    for (int m = 0; m < job_.num_models; ++m) {
      weights.push_back(job_.parameters->number("weight", m));
      sum += weights.back();
    }
    if (job_.parameters->flag("normalize_weights")) {
      if (sum == 0) return Error{concat("multislerp: ", printable(job_.name), ": the weights sum to 0")};
      for (double& w : weights) w /= sum;
    }
    std::vector<double> lengths, mean;  // mean: coefficients over the inputs
    double average_length = 0;
    bool any = false;
    for (std::size_t i = 0; i < n; ++i) {
      lengths.push_back(std::sqrt(gram[i * n + i]));
      average_length += weights[i] * lengths[i];
      mean.push_back(weights[i] / (lengths[i] + eps));
      any = any || lengths[i] > 0;
    }
    const double mean_norm = norm_of(mean, gram);
    if (!any) return combination_of(std::vector<double>(n, 0.0), job_.has_base);  // all inputs are the base, or 0
    if (mean_norm < eps) {
      if (n == 2) return combination_of(weights, job_.has_base);
      return Error{concat("multislerp: ", printable(job_.name),
                          ": the weighted directions cancel, so there is no mean direction; change the weights")};
    }
    for (double& c : mean) c /= mean_norm;
    // T = sum w_i (u_i - (u_i . u) u)
    std::vector<double> tangent(n);
    double along = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double unit = 1 / (lengths[i] + eps);
      tangent[i] = weights[i] * unit;
      along += weights[i] * unit * dot_with(mean, i, gram);
    }
    for (std::size_t i = 0; i < n; ++i) tangent[i] -= along * mean[i];
    const double length = norm_of(tangent, gram) + eps;
    std::vector<double> result(n);
    for (std::size_t i = 0; i < n; ++i) {
      result[i] = average_length * (mean[i] * std::cos(length) + tangent[i] * (std::sin(length) / length));
    }
    return combination_of(result, job_.has_base);
  }
};

// ---- karcher --------------------------------------------------------------------------------------------------------

class KarcherTensor final : public SpanTensor {
 public:
  static constexpr int kExtraTiles = 2;
  KarcherTensor(const TensorJob& job, const Workshop& workshop)
      : SpanTensor(job, job.num_models, false, false, *workshop.tiles) {}
  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<KarcherTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) {
    return SpanTensor::working_bytes(job, job.num_models, false);
  }

 protected:
  Result<Combination> solve(const Gram& gram) const override {
    const auto n = static_cast<std::size_t>(job_.num_models);
    if (n == 1) return Combination{.coefficients = {1}};
    const double tol = job_.parameters->number("tol");
    const auto max_iter = static_cast<std::int64_t>(job_.parameters->number("max_iter"));
    std::vector<double> lengths;
    double average_length = 0;
    std::vector<std::size_t> valid;
    for (std::size_t i = 0; i < n; ++i) {
      lengths.push_back(std::sqrt(gram[i * n + i]));
      average_length += lengths[i] / static_cast<double>(n);
      if (lengths[i] > tol) valid.push_back(i);
    }
    std::vector<double> mean(n);
    if (valid.empty()) return combination_of(mean, false);
    const double alpha = 1.0 / static_cast<double>(valid.size());
    for (const std::size_t i : valid) mean[i] = alpha / lengths[i];
    const double mean_norm = norm_of(mean, gram);
    if (mean_norm < tol) {
      std::fill(mean.begin(), mean.end(), 0.0);
      mean[valid[0]] = 1 / lengths[valid[0]];
    } else {
      for (double& c : mean) c /= mean_norm;
    }
    for (std::int64_t iteration = 0; iteration < max_iter && step(gram, lengths, valid, alpha, tol, mean);
         ++iteration) {
    }
    for (double& c : mean) c *= average_length;
    return combination_of(mean, false);
  }

 private:
  // One log map and exp map; false once the step is below tol.
  static bool step(const Gram& gram, const std::vector<double>& lengths, const std::vector<std::size_t>& valid,
                   double alpha, double tol, std::vector<double>& mean) {
    std::vector<double> tangent(mean.size());
    double along = 0;
    for (const std::size_t i : valid) {
      const double dot = std::clamp(dot_with(mean, i, gram) / lengths[i], -1.0, 1.0);
      const double theta = std::acos(dot), sine = std::sin(theta);
      // An opposite direction has no log map.
      if (theta < tol || sine < 1e-12) continue;
      tangent[i] += alpha * (theta / sine) / lengths[i];
      along += alpha * (theta / sine) * dot;
    }
    for (std::size_t i = 0; i < mean.size(); ++i) tangent[i] -= along * mean[i];
    const double length = norm_of(tangent, gram);
    if (length < tol) return false;
    for (std::size_t i = 0; i < mean.size(); ++i) {
      mean[i] = std::cos(length) * mean[i] + std::sin(length) * (tangent[i] / length);
    }
    const double norm = norm_of(mean, gram);
    for (double& c : mean) c /= norm > tol ? norm : 1.0;
    return true;
  }
};

}  // namespace

std::vector<MethodInfo> spherical_methods() {
  return {
      {.name = "slerp",
       .title = "SLERP",
       .reference = "https://en.wikipedia.org/wiki/Slerp",
       .max_models = 1,
       .missing = MissingTensor::kPassSingle,
       .parameters = {number("t", std::nullopt, "0 gives the base, 1 the other model")},
       .make = PerTensorMerge<SlerpTensor>::make},
      {.name = "nuslerp",
       .title = "NuSLERP",
       .base = BaseRole::kOptional,
       .min_models = 2,
       .max_models = 2,
       .missing = MissingTensor::kPassSingle,
       .parameters = {per_model_number("weight", std::nullopt, "share of this model; t = second / (first + second)"),
                      flag("nuslerp_flatten", true, "the whole tensor is one vector"),
                      flag("nuslerp_row_wise", false,
                           "if not flattened: vectors run along the first axis instead of the last")},
       .make = PerTensorMerge<NuslerpTensor>::make},
      {.name = "multislerp",
       .title = "Multi-SLERP",
       .reference = "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
       .base = BaseRole::kOptional,
       .parameters = {per_model_number("weight", std::nullopt, "share of this model"),
                      flag("normalize_weights", true, "divide by the sum of the weights"),
                      number("eps", 1e-8, "added to lengths before dividing")},
       .make = PerTensorMerge<MultislerpTensor>::make},
      {.name = "karcher",
       .title = "Karcher mean",
       .reference = "https://arxiv.org/abs/2603.04972",
       .base = BaseRole::kNone,
       .parameters = {number("max_iter", 10, "rounds at most"), number("tol", 1e-5, "length of a step that ends them")},
       .make = PerTensorMerge<KarcherTensor>::make},
  };
}

}  // namespace skein::merge
