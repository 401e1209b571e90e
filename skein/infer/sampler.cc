#include "skein/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "skein/base/result.h"

namespace skein {
namespace {

struct Candidate {
  TokenId id;
  double mass;  // probability times a common factor
};

// The most probable tokens with at least `wanted` mass, best first, if those above `floor` have it; empty otherwise.
std::vector<Candidate> best_above(const std::vector<double>& masses, double floor, double wanted) {
  std::vector<Candidate> best;
  double sum = 0;
  for (std::size_t id = 0; id < masses.size(); ++id) {
    if (masses[id] < floor || masses[id] == 0) continue;
    best.push_back({static_cast<TokenId>(id), masses[id]});
    sum += masses[id];
  }
  if (floor > 0 && sum < wanted) return {};
  std::stable_sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) { return a.mass > b.mass; });
  double kept = 0;
  std::size_t count = 0;
  while (count < best.size() && kept < wanted) kept += best[count++].mass;
  best.resize(std::max<std::size_t>(1, count));
  return best;
}

std::uint64_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace

TokenId sample_token(std::span<const float> logits, double temperature, double top_p, double draw) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> masses(logits.size());
  double total = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    masses[id] = std::exp((static_cast<double>(logits[id]) - highest) / temperature);
    total += masses[id];
  }
  if (!std::isfinite(total))
    throw Failure(
        {"the model's logits are NaN or infinite; its weights, or an expert's, are damaged or overflow in this "
         "--dtype"});

  std::vector<Candidate> kept;
  if (top_p < 1) {
    // A full sort of a vocabulary costs more than a small model's step; nearly always few tokens hold the mass.
    kept = best_above(masses, 1e-4, top_p * total);
    if (kept.empty()) kept = best_above(masses, 0, top_p * total);
  } else {
    for (std::size_t id = 0; id < masses.size(); ++id) kept.push_back({static_cast<TokenId>(id), masses[id]});
  }
  double sum = 0;
  for (const Candidate& candidate : kept) sum += candidate.mass;
  double rest = draw * sum;
  TokenId last = kept.front().id;
  for (const Candidate& candidate : kept) {
    if (candidate.mass == 0) continue;
    last = candidate.id;
    rest -= candidate.mass;
    if (rest < 0) break;
  }
  return last;
}

void refuse_nan_logits() {
  throw Failure({"the model's logits are NaN; its weights, or an expert's, are damaged or overflow in this --dtype"});
}

double uniform_draw(std::uint64_t seed, std::uint64_t counter) {
  const std::uint64_t bits = mixed(mixed(seed + 0x9e3779b97f4a7c15ULL) + (counter + 1) * 0x9e3779b97f4a7c15ULL);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace skein
