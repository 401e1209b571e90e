// The routers of jointly trained mixtures (arXiv 2309.05444, section 3): p = softmax(W_g x) over all experts, perhaps
// cut to the k largest; and the two additional losses of mixtures of experts.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/forward_state.h"

namespace skein {

struct RoutingRule {
  int top_k = 0;              // 0: all experts
  bool renormalises = false;  // the k largest are divided by their sum
};

// logits (..., E) f32 -> weights (..., E): the probabilities, those outside the k largest set to 0 (of equals the lower
// index stays). Differentiable.
at::Tensor routing_weights(const at::Tensor& logits, const RoutingRule& rule);

// x (N, D) in the compute dtype, weight (E, D) f32 -> logits (N, E) f32, summed in f32. Differentiable in both; keeps x
// as it is.
at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight);

// How the additional losses of one router enter the gradient of a step (weights 0: not at all).
//   balance = E^2 mean_e(f_e P_e) per sequence, f_e the share of its rows with e among the k largest and P_e the mean
//             probability, then the mean over sequences; 1 at best for k = 1, and constant where all experts are used
//   z_loss  = mean over rows of logsumexp(logits)^2 (arXiv 2202.08906, equation 5)
// Each is a mean over the step's sequences or rows, and over the model's routers.
struct RouterLossWeights {
  double balance = 0, z_loss = 0;
  // Of the whole step: what the means are over.
  std::int64_t num_sequences = 1, num_rows = 1, num_source_rows = 1, num_routers = 1;
};
struct RouterLosses {
  double balance = 0, z_loss = 0;  // of the rows at hand, as their share of the step's means
};

// logits unchanged; in the backward pass the gradient of the weighted losses is added to that of the logits, wherever
// the graph is (also when a block is computed again). logits (N * per_row, E), rows: of the N. values, if not null:
// where to add the losses.
at::Tensor with_router_losses(const at::Tensor& logits, const RoutingRule& rule, const SequenceRows& rows,
                              std::int64_t num_step_rows, const RouterLossWeights& weights, RouterLosses* values);

// What the routers of a pass did, for logs and reports: added up over calls. Rows count once per head.
class RouterRecord : public SlotMemory {
 public:
  explicit RouterRecord(int num_routers) : routers(static_cast<std::size_t>(num_routers)) {}
  struct Router {
    at::Tensor load;     // (E) f64: sum of the weights, each row's divided by their sum
    double entropy = 0;  // sum over rows of the entropy of p, nats
    std::int64_t num_rows = 0;
  };
  void add(int router_idx, const at::Tensor& logits, const at::Tensor& weights);
  // Sums of another record with as many routers.
  void add(const RouterRecord& other);
  std::vector<Router> routers;  // in slot order of the mixture's modules
  RouterLosses losses;
};

}  // namespace skein
