#include "skein/train/adafactor.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {
namespace {

constexpr double kSmallSquare = 1e-30;   // eps of g^2
constexpr double kSmallestScale = 1e-3;  // eps of RMS(p)

double rms(const at::Tensor& tensor) {
  return tensor.norm().item<double>() / std::sqrt(static_cast<double>(tensor.numel()));
}

}  // namespace

Adafactor::Adafactor(std::vector<at::Tensor> parameters, const TrainOptions& options)
    : parameters_(std::move(parameters)),
      decay_(options.adafactor_decay),
      threshold_(options.adafactor_threshold),
      weight_decay_(options.weight_decay),
      scales_by_parameter_(options.scale_parameter),
      relative_(options.relative_step) {
  for (const at::Tensor& parameter : parameters_) {
    SKEIN_CHECK(parameter.scalar_type() == at::kFloat);
    const at::TensorOptions plain = parameter.options().requires_grad(false);
    Moments moments;
    if (options.factored && parameter.dim() >= 2) {
      std::vector<std::int64_t> rows = parameter.sizes().vec(), columns = rows;
      rows.pop_back();
      columns.erase(columns.end() - 2);
      moments.rows = at::zeros(rows, plain);
      moments.columns = at::zeros(columns, plain);
    } else {
      moments.whole = at::zeros(parameter.sizes(), plain);
    }
    moments_.push_back(std::move(moments));
  }
}

at::Tensor Adafactor::update_of(Moments& moments, const at::Tensor& gradient, double kept) const {
  const at::Tensor squares = gradient.square() + kSmallSquare;
  at::Tensor update;
  if (moments.whole.defined()) {
    moments.whole.mul_(kept).add_(squares, 1 - kept);
    update = moments.whole.rsqrt().mul_(gradient);
  } else {
    moments.rows.mul_(kept).add_(squares.mean(-1), 1 - kept);
    moments.columns.mul_(kept).add_(squares.mean(-2), 1 - kept);
    const at::Tensor row_factor = (moments.rows / moments.rows.mean(-1, /*keepdim=*/true)).rsqrt_().unsqueeze(-1);
    update = (row_factor * moments.columns.unsqueeze(-2).rsqrt()).mul_(gradient);
  }
  return update.div_(std::max(1.0, rms(update) / threshold_));
}

void Adafactor::step(const std::vector<at::Tensor>& gradients, double learning_rate) {
  SKEIN_CHECK(gradients.size() == parameters_.size());
  const at::NoGradGuard no_grad;
  ++updates_;
  const auto t = static_cast<double>(updates_);
  const double kept = 1 - std::pow(t, -decay_);
  const double base_rate = relative_ ? std::min(1e-2, 1 / std::sqrt(t)) : learning_rate;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& parameter = parameters_[i];
    const double rate = base_rate * (scales_by_parameter_ ? std::max(kSmallestScale, rms(parameter)) : 1.0);
    const at::Tensor update = update_of(moments_[i], gradients[i], kept);
    if (weight_decay_ != 0) parameter.add_(parameter, -weight_decay_ * rate);
    parameter.sub_(update.mul_(rate));
  }
}

std::vector<NamedState> Adafactor::state(const std::vector<std::string>& names) const {
  SKEIN_CHECK(names.size() == parameters_.size());
  std::vector<NamedState> state;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const Moments& moments = moments_[i];
    if (moments.whole.defined()) {
      state.push_back({"second_moments/" + names[i], moments.whole});
    } else {
      state.push_back({"row_moments/" + names[i], moments.rows});
      state.push_back({"column_moments/" + names[i], moments.columns});
    }
  }
  return state;
}

}  // namespace skein
