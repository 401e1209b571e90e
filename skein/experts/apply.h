// y += sum over the chosen experts of w_e s_e B_e A_e x, the sparse product at the heart of routing.
// How the CPU's kernel works and what it costs: docs/design/routing-kernel.md.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/bank.h"
#include "skein/experts/mixture.h"

namespace skein {

// y (N, D_out), in place (may be a strided row view: last dimension contiguous), x (N, D_in), same dtype. Sums in f32,
// one rounding when adding to y; in bf16 the R weighted middle values of an expert are rounded to bf16 too, as the two
// products of a bf16 LoRA round them. Experts of weight 0 are skipped, never multiplied (a NaN in them stays away). The
// result of a row does not depend on the other rows. Inference only.
void apply_mixture(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y);

// The same for slots that read one x, side by side: their work is shared out among the threads together.
struct MixedPart {
  const BankSlot* slot = nullptr;
  Mixture mixture;
  at::Tensor y;  // (N, D_out) of the slot
};
void apply_mixtures(const std::vector<MixedPart>& parts, const at::Tensor& x);

// apply_mixtures() in two steps, for callers that have x before they have y: shrink() reads x and leaves every part's
// middle values here, expand() adds what they come to. One caller at a time; the room is kept from call to call.
class MixtureProduct {
 public:
  static constexpr std::int64_t kMaxRows = 512;  // keeps the middle within the second-level cache
  MixtureProduct();
  ~MixtureProduct();
  // Up to kMaxRows rows on the CPU; parts[i].y is not looked at.
  void shrink(std::vector<MixedPart> parts, const at::Tensor& x);
  // ys: of each part of shrink(), (N, D_out).
  void expand(const std::vector<at::Tensor>& ys);

 private:
  struct Room;
  std::unique_ptr<Room> room_;
};

// The same as two products with all experts, the middle masked by the weights: y + ..., differentiable in x, y and the
// weights, any device, no device synchronisation while the bank is finite. Costs E/k times the arithmetic.
at::Tensor with_mixture_dense(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y);

// y + (sum of w_e s_e B_e)(sum of w_e A_e) x: each row's factors mixed before they are multiplied (SMEAR, arXiv
// 2306.03745; mttl's Arrow). An expert's ranks are counted from its first: with other ranks it fills the first of the
// largest. Any device. Costs E/k times the arithmetic. Throws Failure where an expert is not finite.
at::Tensor with_mixed_factors(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y);

// The slow, obvious twin: a loop over tokens and experts in f64 -> y + ..., (N, D_out) f64. For tests.
at::Tensor apply_mixture_reference(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x,
                                   const at::Tensor& y);

}  // namespace skein
