// y += sum over the chosen experts of w_e s_e B_e A_e x, the sparse product at the heart of routing.
#pragma once

#include <ATen/core/Tensor.h>

#include "skein/experts/bank.h"
#include "skein/experts/mixture.h"

namespace skein {

// y (N, D_out), in place (may be a strided row view: last dimension contiguous), x (N, D_in), same dtype. Sums in f32,
// one rounding when adding to y. Experts of weight 0 are skipped, never multiplied (a NaN in them stays away). The result
// of a row does not depend on the other rows. Inference only.
void apply_mixture(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, at::Tensor& y);

// The slow, obvious twin: a loop over tokens and experts in f64. For tests.
at::Tensor apply_mixture_reference(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y);

}  // namespace skein
