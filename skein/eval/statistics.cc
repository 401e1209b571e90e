#include "skein/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace skein {

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
std::pair<double, double> wilson_interval(std::int64_t hits, std::int64_t count) {
  if (count <= 0) return {0, 1};
  constexpr double z = 1.959963984540054;  // 97.5 % quantile of the normal distribution
  const double n = static_cast<double>(count), p = static_cast<double>(hits) / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {hits == 0 ? 0 : centre - half, hits == count ? 1 : centre + half};
}

std::pair<double, double> percentile_interval(std::vector<double> replicates, double level) {
  std::erase_if(replicates, [](double value) { return std::isnan(value); });
  if (replicates.empty()) return {kNaN, kNaN};
  std::sort(replicates.begin(), replicates.end());
  const auto quantile = [&](double q) {
    const double at = q * static_cast<double>(replicates.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const std::size_t above = std::min(below + 1, replicates.size() - 1);
    return replicates[below] + (at - static_cast<double>(below)) * (replicates[above] - replicates[below]);
  };
  return {quantile((1 - level) / 2), quantile((1 + level) / 2)};
}

double bootstrap_p_value(const std::vector<double>& differences) {
  std::int64_t above = 1, below = 1;  // the sample itself is a replicate too: never an impossible p of 0
  for (const double difference : differences) {
    above += difference >= 0 ? 1 : 0;
    below += difference <= 0 ? 1 : 0;
  }
  return std::min(1.0, 2 * static_cast<double>(std::min(above, below)) / static_cast<double>(differences.size() + 1));
}

double mcnemar_p_value(std::int64_t only_first, std::int64_t only_second) {
  const std::int64_t n = only_first + only_second, fewer = std::min(only_first, only_second);
  if (n == 0) return 1;
  // Sum of the binomial distribution's terms up to `fewer`, each by its logarithm: 2^-n alone would underflow.
  double sum = 0;
  for (std::int64_t k = 0; k <= fewer; ++k) {
    const double log_ways = std::lgamma(static_cast<double>(n + 1)) - std::lgamma(static_cast<double>(k + 1)) -
                            std::lgamma(static_cast<double>(n - k + 1));
    sum += std::exp(log_ways - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * sum);
}

std::vector<double> holm_corrected(const std::vector<double>& p_values) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p_values.size(); ++i) {
    if (!std::isnan(p_values[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> corrected(p_values.size(), kNaN);
  double most = 0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    most = std::max(most, std::min(1.0, static_cast<double>(order.size() - rank) * p_values[order[rank]]));
    corrected[order[rank]] = most;
  }
  return corrected;
}

Resampler::Resampler(std::uint64_t seed, const std::string& task, std::size_t count)
    : state_(seed + 0x9e3779b97f4a7c15), count_(count) {
  for (const char c : task) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;  // FNV-1a's step
  next();
}

// SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
std::uint64_t Resampler::next() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::vector<int> Resampler::draw() {
  std::vector<int> times(count_, 0);
  for (std::size_t i = 0; i < count_; ++i) ++times[below(count_)];
  return times;
}

// The high half of a product of 32 random bits: its bias, n / 2^32, is far below what replicates can show.
std::size_t Resampler::below(std::size_t n) { return ((next() >> 32) * n) >> 32; }

}  // namespace skein
