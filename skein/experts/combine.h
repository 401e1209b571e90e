// Arithmetic on whole adapters: one out of many, without the dense product of any.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/spec/expert_folder.h"

namespace skein {

// A = sum of w_e A_e, B = sum of w_e s_e B_e, scale 1 (LoraHub, arXiv 2307.13269, equation 1; with w = 1/E the other
// definition of merged experts). Where ranks differ the smaller fill the first of the largest. An adapter that lacks a
// slot adds nothing there.
LoraAdapter weighted_factors(const std::vector<const LoraAdapter*>& adapters, const std::vector<double>& weights);

// A_e - mean of the general A, B_e - mean of the general B, module by module, the scale kept (GenKnowSub, arXiv
// 2505.10939, as PEFT computes it). Throws Failure (kUsage) where ranks differ.
LoraAdapter without_general(const LoraAdapter& adapter, const std::vector<const LoraAdapter*>& general,
                            const std::vector<SlotName>& slots);

// sum of weights[s][e] s_e B_e A_e at every slot s, exactly: the factors side by side, of rank sum of R_e over the
// experts whose weight there is not 0. weights: (slots, E).
LoraAdapter concatenated(const std::vector<const LoraAdapter*>& adapters,
                         const std::vector<std::vector<double>>& weights);

// The best approximation of B A of at most `rank` at every module, by an SVD of the core R_B R_A^T of two QR
// decompositions. lost, if not null, receives per module ||B A - result|| / ||B A|| (0 where nothing is lost).
LoraAdapter of_rank(const LoraAdapter& adapter, const std::vector<SlotName>& slots, std::int64_t rank,
                    std::vector<double>* lost = nullptr);

// U (D_out, K), singular values (K) descending and V (D_in, K) of s B A, K = min(R, D_out, D_in), f64.
struct LoraTriples {
  at::Tensor u, sigma, v;
};
LoraTriples singular_triples(const LoraTensors& module, const SlotName& slot);

}  // namespace skein
