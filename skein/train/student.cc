#include "skein/train/student.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/progress.h"
#include "skein/experts/trainable_lora.h"
#include "skein/infer/distill.h"
#include "skein/train/data_order.h"
#include "skein/train/loss.h"
#include "skein/train/optimiser.h"
#include "skein/train/schedule.h"
#include "skein/train/target_batch.h"

namespace skein {

// d KL(p || softmax(l)) / dl = softmax(l) - p.
DivergenceLoss divergence_loss(const Backbone& backbone, const at::Tensor& teacher, const at::Tensor& student,
                               std::int64_t chunk_rows) {
  const std::int64_t num_rows = student.size(0);
  SKEIN_CHECK(num_rows > 0 && teacher.size(0) == num_rows && chunk_rows > 0);
  DivergenceLoss loss;
  std::vector<at::Tensor> gradients;
  for (std::int64_t begin = 0; begin < num_rows; begin += chunk_rows) {
    const std::int64_t count = std::min(chunk_rows, num_rows - begin);
    // Only the head's own operations are recorded, so that any head (scaled, tied or not) gives its gradient.
    const at::AutoGradMode record(true);
    const at::Tensor leaf = student.detach().narrow(0, begin, count).detach().requires_grad_(true);
    const at::Tensor logits = backbone.logits(leaf);  // (c, V)
    const at::NoGradGuard no_grad;
    const at::Tensor q = at::log_softmax(logits.detach().to(at::kFloat), 1);
    const at::Tensor p = at::log_softmax(backbone.logits(teacher.narrow(0, begin, count)).to(at::kFloat), 1);
    loss.sum += (p.exp() * (p - q)).to(at::kDouble).sum().item<double>();
    const at::Tensor gradient = (q.exp() - p.exp()).div_(static_cast<double>(num_rows));
    torch::autograd::backward({logits}, {gradient.to(logits.scalar_type())});
    gradients.push_back(leaf.grad());
  }
  loss.hidden_gradient = at::cat(gradients);
  return loss;
}

LoraAdapter train_student(const Backbone& backbone, const SlotFiller& teacher, const LoraAdapter& start,
                          const std::vector<EncodedExample>& examples, const TrainOptions& options,
                          StudentReport* report) {
  SKEIN_CHECK(!examples.empty());
  or_throw(check_train_options(options));
  TrainData data;
  data.examples = examples;
  const TrainableLora student(backbone.slots(), start, backbone.compute().device);
  const std::vector<at::Tensor> parameters = student.parameters();
  const auto optimiser = make_optimiser(parameters, options);
  DataOrder order(static_cast<std::int64_t>(examples.size()), options.seed);
  Progress progress("distilling", options.steps, "steps");
  for (std::int64_t step = 0; step < options.steps; ++step) {
    if (interrupted()) throw Failure({"interrupted; nothing was written", ErrorKind::kInterrupted});
    std::vector<std::int64_t> idxs;
    for (std::int64_t i = 0; i < options.batch; ++i) idxs.push_back(order.at(step * options.batch + i));
    const TargetBatch batch = make_target_batch(data, idxs, backbone);
    std::vector<EncodedExample> shown;
    for (const std::int64_t idx : idxs) shown.push_back(examples[static_cast<std::size_t>(idx)]);
    const at::Tensor taught = predicting_rows(backbone, &teacher, shown);  // (n, D)
    for (const at::Tensor& parameter : parameters) parameter.mutable_grad().reset();
    double divergence = 0;
    {
      const at::AutoGradMode record(true);
      const at::Tensor hidden = target_hidden(backbone, batch, &student);
      const DivergenceLoss loss = divergence_loss(backbone, taught, hidden, kLossChunkRows);
      divergence = loss.sum / static_cast<double>(hidden.size(0));
      if (std::isfinite(divergence)) hidden.backward(loss.hidden_gradient);
    }
    if (!std::isfinite(divergence)) {
      throw Failure({concat("step ", step + 1, " of ", options.steps,
                            ": the divergence from the pool is not finite; likely a rate that is too high (now ",
                            learning_rate_at(options, step), ")")});
    }
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : parameters)
      gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
    clip_by_global_norm(gradients, options.clip_norm);
    optimiser->step(gradients, learning_rate_at(options, step));
    if (report != nullptr) report->divergences.push_back(divergence);
    char note[32];
    std::snprintf(note, sizeof note, "KL %.4f", divergence);
    progress.update(step + 1, note);
  }
  return student.to_adapter(start.config.base_model_name_or_path, backbone.config().is_encoder_decoder());
}

}  // namespace skein
