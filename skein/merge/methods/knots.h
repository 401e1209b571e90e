// KnOTS (arXiv 2410.19735): the deltas side by side, [D_1 | ... | D_E] = P diag(s) [V_1 ... V_E]^T, share their left
// vectors; the right blocks, now in one basis, are merged, and the result is P diag(s) V_merged^T.
#pragma once

#include <span>
#include <vector>

#include "skein/merge/methods/matrix_tensor.h"

namespace skein::merge {

struct KnotsRule {
  enum class Inner { kTies, kAverage } inner = Inner::kTies;
  std::vector<double> densities;  // per delta; share of each V_e that TIES keeps
};

// One adapter's delta, B A with all scaling in it.
struct LowRank {
  Matrix b;  // (outputs, rank)
  Matrix a;  // (rank, inputs)
};

// The V_e^T blocks, (k, inputs) each, merged: TIES (trim, elect by the sum, mean of the agreeing) or the mean.
MatrixF64 merge_blocks(const std::vector<MatrixF64>& blocks, const KnotsRule& rule);

// From dense deltas: the merged delta.
Matrix knots(const std::vector<Matrix>& deltas, const KnotsRule& rule);
// From adapters, without ever forming a dense delta: the merged adapter, of at most the sum of their ranks.
// Requires the same outputs and inputs for all.
LowRank knots(std::span<const LowRank> adapters, const KnotsRule& rule);

}  // namespace skein::merge
