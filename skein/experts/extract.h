// A full fine-tune as a LoRA expert: the best rank-R approximation of tuned - base at every linear, by randomised SVD
// (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.4 and 5.1), so that a fine-tune can join a pool.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/compute.h"
#include "skein/spec/base_model.h"
#include "skein/spec/expert_folder.h"

namespace skein {

struct ExtractOptions {
  std::int64_t rank = 16;             // at most min(D_out, D_in) of each linear, where it is cut to that
  std::int64_t oversampling = 10;     // extra random directions
  std::int64_t power_iterations = 2;  // each sharpens the spectrum: more for slowly decaying singular values
  std::uint64_t seed = 0;
};

struct ExtractedModule {
  std::string module;
  double relative_error = 0;   // ||tuned - base - B A||_F / ||tuned - base||_F; 0 for a linear that did not change
  double relative_change = 0;  // ||tuned - base||_F / ||base||_F
};

struct Extraction {
  LoraAdapter adapter;                   // alpha = rank, so that the scale is 1; B A = approximation
  std::vector<ExtractedModule> modules;  // in slot order
  // Tensors that changed but are no linears of a block (norms, embeddings): an adapter leaves them at the base's
  // values.
  std::vector<std::pair<std::string, double>> left_out;  // name, relative change
};

// Reads both models tensor by tensor (memory: a few matrices). Throws Failure if the shapes differ or a value is not
// finite. Deterministic for a given seed and number of threads.
Extraction extract_lora(const BaseModel& base, const BaseModel& tuned, const ExtractOptions& options,
                        const ComputeOptions& compute);

// U (m, r), singular values (r), V (n, r) of the leading r singular triples of `matrix` (m, n), f32.
struct LeadingTriples {
  at::Tensor u, sigma, v;
};
LeadingTriples randomized_svd(const at::Tensor& matrix, std::int64_t rank, const ExtractOptions& options);

}  // namespace skein
