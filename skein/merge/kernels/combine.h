// Election of signs and the joining of deltas, element by element.
#pragma once

#include <cstdint>
#include <span>

namespace skein::merge {

struct CombineRule {
  // Whose sum decides the sign of an element; kNone: no election, everything is summed.
  enum class Elect {
    kNone,
    kWeighted,  // weight * delta (mergekit)
    kMass,      // delta (the TIES paper; PEFT's "total")
    kCount,     // sign of the delta (PEFT's "frequency")
  };
  enum class ZeroSign { kPlus, kMinus, kDrop };  // what a sum of exactly 0 elects; kDrop: nothing is kept
  enum class Divide {
    kNo,
    kWeights,  // by the sum of the weights of those kept (1 where that is 0)
    kCount,    // by the number of those kept
  };
  Elect elect = Elect::kNone;
  ZeroSign zero_sign = ZeroSign::kPlus;
  Divide divide = Divide::kNo;  // with an election only; without one the divisor is a constant, see `constant_divisor`
  float constant_divisor = 1;
  float least_divisor = 0;  // a smaller one is raised to it
  float lambda = 1;
};

struct CombineKernels {
  // out = base + lambda * (sum over the kept models of weight * delta) / divisor; base null: as zero.
  void (*combine)(std::span<const float* const> deltas, std::span<const float> weights, std::int64_t n,
                  const CombineRule& rule, const float* base, float* out);
  // Elements whose sum is above 0, less those below 0.
  std::int64_t (*majority)(std::span<const float* const> deltas, std::span<const float> weights, std::int64_t n,
                           CombineRule::Elect elect);
};

CombineKernels combine_kernels();

}  // namespace skein::merge
