#include "tests/agreement/merge/task_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "skein/base/half.h"

namespace skein::merge::agreement {
namespace {

bool is_random(const std::string& method) { return method.starts_with("dare") || method.starts_with("della"); }
bool elects(const std::string& method) { return method.ends_with("ties") || method == "della"; }

// The magnitude that selection compares: of the delta in the working type.
float magnitude(float model, float base, DType type) {
  const float delta = std::abs(model - base);
  if (type == DType::kBF16) return bf16_to_f32(f32_to_bf16(delta));
  return type == DType::kF16 ? f16_to_f32(f32_to_f16(delta)) : delta;
}

struct Selection {
  std::vector<bool> kept;
  std::vector<bool> at_cut;
};

// The elements of ranks [skip, skip + take) by falling magnitude, the lowest index first among equals.
Selection select(const std::vector<float>& sizes, std::int64_t skip, std::int64_t take) {
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  Selection result{std::vector<bool>(sizes.size()), std::vector<bool>(sizes.size())};
  for (std::int64_t rank = skip; rank < skip + take; ++rank) result.kept[order[rank]] = true;
  for (const std::int64_t cut : {skip, skip + take}) {  // between ranks cut - 1 and cut
    if (cut <= 0 || cut >= static_cast<std::int64_t>(sizes.size())) continue;
    const float size = sizes[order[cut]];
    if (size != sizes[order[cut - 1]]) continue;
    for (std::size_t at = 0; at < sizes.size(); ++at) result.at_cut[at] = result.at_cut[at] || sizes[at] == size;
  }
  return result;
}

Selection selected(const std::string& method, const TensorJob& job, const std::vector<float>& sizes, int model) {
  const auto n = static_cast<std::int64_t>(sizes.size());
  const double density = job.parameters->number("density", model);
  if (density >= 1) return {std::vector<bool>(sizes.size(), true), std::vector<bool>(sizes.size())};
  if (method == "ties") return select(sizes, 0, std::max<std::int64_t>(1, static_cast<std::int64_t>(density * n)));
  const auto take = static_cast<std::int64_t>(density * n);
  const auto top = static_cast<std::int64_t>(job.parameters->number("gamma", model) * n);
  return select(sizes, std::min(top, n - take), take);
}

}  // namespace

std::vector<double> keep_probabilities(const std::string& method, const TensorJob& job, const TaskInputs& inputs,
                                       int model_idx) {
  const std::size_t n = inputs.base.size();
  const double density = job.parameters->number("density", model_idx);
  std::vector<double> probabilities(n, density);
  if (!method.starts_with("della") || density >= 1) return probabilities;
  const double epsilon = job.parameters->number("epsilon", model_idx);
  const std::size_t width = job.shape.size() < 2 ? n : n / job.shape[0];
  for (std::size_t row = 0; row < n; row += width) {
    std::vector<std::size_t> order(width);
    std::iota(order.begin(), order.end(), row);
    const auto& model = inputs.models[model_idx];
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return magnitude(model[a], inputs.base[a], job.working_dtype) <
             magnitude(model[b], inputs.base[b], job.working_dtype);
    });
    for (std::size_t rank = 0; rank < width; ++rank) {
      probabilities[order[rank]] =
          density - epsilon + 2 * epsilon * static_cast<double>(rank) / static_cast<double>(width - 1);
    }
  }
  return probabilities;
}

TaskResult merge_tasks(const std::string& method, const TensorJob& job, const TaskInputs& inputs,
                       const std::vector<std::vector<bool>>* masks, double vote_slack) {
  const std::size_t n = inputs.base.size(), num_models = inputs.models.size();
  const MethodParameters& parameters = *job.parameters;
  const bool sparse = method != "task_arithmetic";
  TaskResult result{std::vector<double>(n), std::vector<double>(n), std::vector<bool>(n), {}};
  std::vector<std::vector<double>> moved(num_models, std::vector<double>(n));  // weight * delta
  for (std::size_t m = 0; m < num_models; ++m) {
    std::vector<bool> kept(n, true);
    if (is_random(method)) {
      if (masks != nullptr) kept = (*masks)[m];
    } else if (sparse) {
      std::vector<float> sizes(n);
      for (std::size_t at = 0; at < n; ++at)
        sizes[at] = magnitude(inputs.models[m][at], inputs.base[at], job.working_dtype);
      Selection selection = selected(method, job, sizes, static_cast<int>(m));
      kept = selection.kept;
      for (std::size_t at = 0; at < n; ++at) {
        result.undecided[at] = result.undecided[at] || (selection.at_cut[at] && sizes[at] != 0);
      }
    }
    double before = 0, after = 0;
    for (std::size_t at = 0; at < n; ++at) {
      moved[m][at] = static_cast<double>(inputs.models[m][at]) - inputs.base[at];
      before += std::abs(moved[m][at]);
      if (!kept[at]) moved[m][at] = 0;
      after += std::abs(moved[m][at]);
    }
    double factor = parameters.number("weight", static_cast<int>(m));
    const bool rescale = sparse && parameters.flag("rescale") && parameters.number("density", static_cast<int>(m)) < 1;
    if (rescale && before >= 1e-7 && after >= 1e-7) factor *= before / after;
    for (double& value : moved[m]) value *= factor;
    result.kept.push_back(std::move(kept));
  }
  for (std::size_t at = 0; at < n; ++at) {
    double sum = 0, size = 0;
    for (std::size_t m = 0; m < num_models; ++m) sum += moved[m][at], size += std::abs(moved[m][at]);
    if (elects(method)) result.undecided[at] = result.undecided[at] || (size > 0 && std::abs(sum) <= vote_slack * size);
    const double sign = sum >= 0 ? 1 : -1;
    double kept = 0, weights = 0;
    for (std::size_t m = 0; m < num_models; ++m) {
      if (elects(method) && !(moved[m][at] * sign > 0)) continue;
      kept += moved[m][at];
      weights += parameters.number("weight", static_cast<int>(m));
    }
    double divisor = 1;
    if (parameters.flag("normalize"))
      divisor = elects(method) ? (weights == 0 ? 1 : weights) : (std::abs(weights) < 1e-8 ? 1 : weights);
    const double lambda = parameters.number("lambda");
    result.values[at] = inputs.base[at] + lambda * kept / divisor;
    result.moved[at] = std::abs(lambda) * size / std::abs(divisor);
  }
  return result;
}

}  // namespace skein::merge::agreement
