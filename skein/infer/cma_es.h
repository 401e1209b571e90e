// Minimisation without gradients: CMA-ES (Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, figure
// 6).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace skein {

struct CmaEsOptions {
  std::int64_t generations = 40;
  std::int64_t population = 0;  // 0: 4 + 3 ln n
  double step = 0.5;            // first standard deviation
  double bound = 1.5;           // |x_i| at most: candidates are cut to it, and pay for what was cut
  std::uint64_t seed = 0;
};

struct CmaEsResult {
  std::vector<double> best;
  double value = 0;        // of the best
  double first_value = 0;  // of the start
  std::int64_t evaluations = 0;
};

// Deterministic for a seed. value may be infinite, not NaN.
CmaEsResult minimise(const std::function<double(const std::vector<double>&)>& value, std::vector<double> start,
                     const CmaEsOptions& options);

}  // namespace skein
