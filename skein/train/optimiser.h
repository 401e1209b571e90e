// What turns gradients into updates, and what of it a saved state must hold.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/train/options.h"

namespace skein {

struct NamedState {
  std::string name;   // "first_moments/model.layers.0.self_attn.q_proj.lora_A"
  at::Tensor tensor;  // f32
};

// The parameters are f32 leaves, shared with whoever computes with them; the state belongs to the optimiser.
class Optimiser {
 public:
  virtual ~Optimiser() = default;
  // gradients: f32, one per parameter, in the same order.
  virtual void step(const std::vector<at::Tensor>& gradients, double learning_rate) = 0;
  // names: of the parameters, in order. Shares the tensors: copying values in and set_updates() restores a state.
  virtual std::vector<NamedState> state(const std::vector<std::string>& names) const = 0;

  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }

 protected:
  std::int64_t updates_ = 0;
};

std::unique_ptr<Optimiser> make_optimiser(std::vector<at::Tensor> parameters, const TrainOptions& options);

// The 2-norm over all gradients; scales them in place by max_norm / (norm + 1e-6) if that is below 1 (PyTorch's
// clip_grad_norm_). max_norm 0: only the norm. Not finite if a gradient is not; they are left as they are then.
double clip_by_global_norm(const std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace skein
