// One LoRA trained on what another filler of the same slots says: distillation on its outputs (Hinton et al., arXiv
// 1503.02531, at temperature 1).
#pragma once

#include <cstdint>
#include <vector>

#include "skein/infer/prompt.h"
#include "skein/nn/backbone.h"
#include "skein/nn/slot.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/options.h"

namespace skein {

struct StudentReport {
  std::vector<double> divergences;  // of each step's batch, before its update: mean KL(teacher || student) per token
};

// KL(teacher || student) in nats per row, summed, and its gradient at the student's hidden states.
struct DivergenceLoss {
  double sum = 0;
  at::Tensor hidden_gradient;  // (n, D), dtype of hidden; of the mean over the rows
};
// teacher, student (n, D): the rows that predict a token, before the output head. Logits are made chunk by chunk, as in
// target_loss().
DivergenceLoss divergence_loss(const Backbone& backbone, const at::Tensor& teacher, const at::Tensor& student,
                               std::int64_t chunk_rows);

// The adapter that starts from `start` and says of each target token of the examples what the teacher says: minimises
// the mean KL(teacher || student) over the tokens of each batch. Of options: steps, batch, rate, warm-up, schedule,
// clipping, seed. Throws Failure: a divergence that is not finite, an interrupt.
LoraAdapter train_student(const Backbone& backbone, const SlotFiller& teacher, const LoraAdapter& start,
                          const std::vector<EncodedExample>& examples, const TrainOptions& options,
                          StudentReport* report = nullptr);

}  // namespace skein
