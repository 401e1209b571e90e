#include "skein/train/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "skein/base/check.h"

namespace skein {

AdamW::AdamW(std::vector<at::Tensor> parameters, const TrainOptions& options)
    : parameters_(std::move(parameters)),
      beta1_(options.beta1),
      beta2_(options.beta2),
      eps_(options.adam_eps),
      weight_decay_(options.weight_decay) {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : parameters_) {
    SKEIN_CHECK(parameter.scalar_type() == at::kFloat && parameter.is_contiguous());
    first_moments_.push_back(at::zeros_like(parameter));
    second_moments_.push_back(at::zeros_like(parameter));
    update_counts_.push_back(at::zeros({}, parameter.options().requires_grad(false)));
  }
}

void AdamW::step(const std::vector<at::Tensor>& gradients, double learning_rate) {
  SKEIN_CHECK(gradients.size() == parameters_.size());
  const at::NoGradGuard no_grad;
  ++updates_;
  for (at::Tensor& count : update_counts_) count.fill_(static_cast<double>(updates_));
  at::_fused_adamw_(parameters_, gradients, first_moments_, second_moments_, /*max_exp_avg_sqs=*/{}, update_counts_,
                    learning_rate, beta1_, beta2_, weight_decay_, eps_, /*amsgrad=*/false, /*maximize=*/false);
}

std::vector<NamedState> AdamW::state(const std::vector<std::string>& names) const {
  SKEIN_CHECK(names.size() == parameters_.size());
  std::vector<NamedState> state;
  for (std::size_t i = 0; i < names.size(); ++i) {
    state.push_back({"first_moments/" + names[i], first_moments_[i]});
    state.push_back({"second_moments/" + names[i], second_moments_[i]});
  }
  return state;
}

}  // namespace skein
