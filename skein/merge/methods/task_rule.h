// What the methods on task vectors (deltas from a base) share: weights, election, denominator, lambda, rescaling.
#pragma once

#include <vector>

#include "skein/merge/kernels/combine.h"
#include "skein/merge/method.h"
#include "skein/merge/methods/magnitude_selection.h"

namespace skein::merge {

enum class Rescale {
  kNo,
  kL1,           // to the L1 norm before sparsification (mergekit)
  kExpectation,  // by 1 / probability of being kept (the DARE and DELLA papers)
};

struct TaskRule {
  std::vector<float> weights;  // per model
  CombineRule combine;
  bool majority_decides = false;  // a zero sum elects the sign most elements elected; combine.zero_sign comes later
  Rescale rescale = Rescale::kNo;
  TiesAtCut ties = TiesAtCut::kLowestIndex;
  bool global_trim = false;
  // How many of n are kept at this density: mergekit max(1, int(density n)); paper one more; PEFT int(density n).
  enum class Count { kMergekit, kPaper, kPeft } count = Count::kMergekit;

  std::int64_t kept(double density, std::int64_t n) const;
};

// Reads the parameters the method has; `elects`: the method has an election.
Result<TaskRule> task_rule(const TensorJob& job, bool elects);

// The zero sign a balance of elected signs stands for.
CombineRule::ZeroSign zero_sign_of(std::int64_t balance);

// L1 norms before and after, summed per block: the factor that restores the norm. 1 where either is below 1e-7.
float l1_factor(double before, double after);

}  // namespace skein::merge
