// A micro-batch: examples packed side by side without padding, and which rows predict a target token.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/infer/prompt.h"
#include "skein/nn/backbone.h"
#include "skein/nn/packed_batch.h"
#include "skein/train/options.h"

namespace skein {

// Examples as token ids, with names for messages.
struct TrainData {
  std::vector<EncodedExample> examples;  // input and target not empty
  std::vector<std::string> ids;          // same order
  std::vector<int> task_of;              // same order, index into tasks; empty: all of one
  std::vector<std::string> tasks;        // in order of appearance
  std::int64_t inputs_cut = 0;
};

struct TargetBatch {
  std::optional<PackedBatch> source;         // encoder-decoders: the inputs
  PackedBatch batch;                         // (N) rows: input and target without its last token, or the decoder's side
  at::Tensor rows;                           // (n) int64: rows of N whose next token is a target, example by example
  at::Tensor targets;                        // (n) int64
  std::vector<std::int64_t> target_lengths;  // per example; sums to n
  std::int64_t num_tokens = 0;               // rows computed, the source's included
};

TargetBatch make_target_batch(const TrainData& data, std::span<const std::int64_t> example_idxs,
                              const Backbone& backbone);

// (n) f32: the weight of each target row of a micro-batch, such that the sum over a step's micro-batches of weight *
// loss is the step's mean (and gradients of micro-batches simply add up). The step has step_sequences in
// step_microbatches with step_target_tokens.
struct StepSize {
  std::int64_t sequences = 0, microbatches = 0, target_tokens = 0;
  std::int64_t rows = 0, source_rows = 0;  // computed: of the decoder's side (or the whole), of the encoder's
};
at::Tensor row_weights(const std::vector<std::int64_t>& target_lengths, LossMean mean, const StepSize& step);

// Hidden states (n, D) of the rows that predict targets, filler's experts included. memory: for the filler, may be
// null.
at::Tensor target_hidden(const Backbone& backbone, const TargetBatch& batch, const SlotFiller* filler,
                         std::shared_ptr<SlotMemory> memory = nullptr);

}  // namespace skein
