// How sure a score is, and whether two differ: paired, by example id, corrected for how many were compared.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace skein {

double mean(const std::vector<double>& values);

// 95 % Wilson interval of `hits` out of `count`; (0, 1) for none.
std::pair<double, double> wilson_interval(std::int64_t hits, std::int64_t count);

// The central share `level` of bootstrap replicates (percentile method, B. Efron, "Bootstrap methods: another look at
// the jackknife", Ann. Stat. 7 (1979)), interpolated as R's type 7. NaN of nothing.
std::pair<double, double> percentile_interval(std::vector<double> replicates, double level = 0.95);

// Two-sided p of no difference, from replicates of the difference: twice the share beyond zero, of n + 1.
double bootstrap_p_value(const std::vector<double>& differences);

// Exact two-sided McNemar test (Q. McNemar, Psychometrika 12 (1947)): of the pairs that differ, how likely is a split
// at least this uneven between equals. 1 if none differ.
double mcnemar_p_value(std::int64_t only_first, std::int64_t only_second);

// S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979): p-values raised so that
// each may be compared with the level of the whole family. NaN stays NaN and is not counted.
std::vector<double> holm_corrected(const std::vector<double>& p_values);

// Draws for one task, the same on every machine: draw() is how often each of `count` ids is taken.
class Resampler {
 public:
  Resampler(std::uint64_t seed, const std::string& task, std::size_t count);
  std::vector<int> draw();           // of the next replicate
  std::size_t below(std::size_t n);  // one of 0 .. n-1, n > 0

 private:
  std::uint64_t next();
  std::uint64_t state_;
  std::size_t count_;
};

}  // namespace skein
