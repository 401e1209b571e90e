#include "skein/infer/cma_es.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include <ATen/ATen.h>

namespace skein {
namespace {

// The constants of a dimension and a population size (tutorial, table 1).
struct Constants {
  std::int64_t population, parents;
  at::Tensor weights;  // (parents), sum 1
  double mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, expected_norm;

  Constants(std::int64_t n, std::int64_t given) {
    const auto size = static_cast<double>(n);
    population = given > 0 ? given : 4 + static_cast<std::int64_t>(3 * std::log(size));
    parents = population / 2;
    std::vector<double> raw;
    for (std::int64_t i = 1; i <= parents; ++i) {
      raw.push_back(std::log((static_cast<double>(population) + 1) / 2) - std::log(static_cast<double>(i)));
    }
    weights = at::tensor(raw, at::kDouble);
    weights = weights / weights.sum();
    mu_eff = 1 / weights.square().sum().item<double>();
    c_sigma = (mu_eff + 2) / (size + mu_eff + 5);
    d_sigma = 1 + 2 * std::max(0.0, std::sqrt((mu_eff - 1) / (size + 1)) - 1) + c_sigma;
    c_c = (4 + mu_eff / size) / (size + 4 + 2 * mu_eff / size);
    c_1 = 2 / ((size + 1.3) * (size + 1.3) + mu_eff);
    c_mu = std::min(1 - c_1, 2 * (mu_eff - 2 + 1 / mu_eff) / ((size + 2) * (size + 2) + mu_eff));
    expected_norm = std::sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size * size));
  }
};

std::vector<double> numbers(const at::Tensor& x) {
  const at::Tensor row = x.contiguous();
  return {row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel()};
}

}  // namespace

CmaEsResult minimise(const std::function<double(const std::vector<double>&)>& value, std::vector<double> start,
                     const CmaEsOptions& options) {
  const auto n = static_cast<std::int64_t>(start.size());
  const Constants c(n, options.population);
  CmaEsResult result{start, value(start), 0, 1};
  result.first_value = result.value;
  at::Tensor mean = at::tensor(start, at::kDouble), covariance = at::eye(n, at::kDouble);
  at::Tensor path_sigma = at::zeros({n}, at::kDouble), path_c = at::zeros({n}, at::kDouble);
  double sigma = options.step;
  std::mt19937_64 generator(options.seed);
  std::normal_distribution<double> normal;
  for (std::int64_t g = 0; g < options.generations; ++g) {
    const auto [eigenvalues, basis] = at::linalg_eigh(covariance);
    const at::Tensor deviations = eigenvalues.clamp_min(1e-20).sqrt();
    std::vector<at::Tensor> steps;  // y of x = mean + sigma y
    std::vector<double> costs;
    for (std::int64_t i = 0; i < c.population; ++i) {
      at::Tensor z = at::empty({n}, at::kDouble);
      for (std::int64_t j = 0; j < n; ++j) z.mutable_data_ptr<double>()[j] = normal(generator);
      const at::Tensor y = basis.mv(deviations * z);
      const at::Tensor x = mean + sigma * y, inside = x.clamp(-options.bound, options.bound);
      const std::vector<double> candidate = numbers(inside);
      const double cost = value(candidate);
      ++result.evaluations;
      if (cost < result.value) {
        result.value = cost;
        result.best = candidate;
      }
      steps.push_back(y);
      costs.push_back(cost + (x - inside).square().sum().item<double>());
    }
    std::vector<std::int64_t> order(costs.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return costs[a] < costs[b]; });
    order.resize(c.parents);
    const at::Tensor chosen = at::stack(steps).index_select(0, at::tensor(order));  // (parents, n)
    const at::Tensor move = chosen.t().mv(c.weights);
    mean = mean + sigma * move;
    const at::Tensor whitened = basis.mv(basis.t().mv(move) / deviations);
    path_sigma = (1 - c.c_sigma) * path_sigma + std::sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * whitened;
    const double length = path_sigma.norm().item<double>();
    const double unbiased = std::sqrt(1 - std::pow(1 - c.c_sigma, 2 * static_cast<double>(g + 1)));
    const bool is_short = length / unbiased < (1.4 + 2 / (static_cast<double>(n) + 1)) * c.expected_norm;
    path_c = (1 - c.c_c) * path_c + (is_short ? std::sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) : 0.0) * move;
    const double lost = is_short ? 0 : c.c_1 * c.c_c * (2 - c.c_c);
    covariance = (1 - c.c_1 - c.c_mu + lost) * covariance + c.c_1 * at::outer(path_c, path_c) +
                 c.c_mu * (chosen.t() * c.weights).matmul(chosen);
    sigma *= std::exp(c.c_sigma / c.d_sigma * (length / c.expected_norm - 1));
  }
  return result;
}

}  // namespace skein
