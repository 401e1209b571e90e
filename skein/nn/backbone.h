// A frozen language model: packed tokens in, hidden states and logits out. Loaded without a gradient anywhere.
//
// Thread-safety: const after loading; calls from several threads are safe, each with its own ForwardState and caches.
// Errors: throws Failure (or libtorch's own exceptions). Autograd: gradients flow through forward() into whatever the
// filler owns when grad mode is on; commands that do not train run under c10::InferenceMode.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/compute.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/model_tensor.h"
#include "skein/nn/packed_batch.h"
#include "skein/spec/base_model.h"
#include "skein/spec/tensor_names.h"

namespace skein {

// Encoder outputs of a batch.
struct EncodedSource {
  at::Tensor hidden;                         // (S_total, D)
  std::shared_ptr<const SequenceRows> rows;  // of the source batch
};

class Backbone {
 public:
  virtual ~Backbone() = default;
  const BackboneConfig& config() const { return config_; }
  const ComputeOptions& compute() const { return compute_; }
  const std::vector<SlotName>& slots() const { return slots_; }
  // Every tensor in forward order. Only train/thaw.h may ask for their gradients.
  const std::vector<ModelTensor>& tensors() const { return tensors_; }

  // Encoder-decoders only: (S_total, D). Segments are bidirectional here.
  virtual EncodedSource encode(const PackedBatch& source, ForwardState& state) const;
  // Hidden states after the final norm, (N, D). source: null for decoder-only models; may be null for an
  // encoder-decoder whose caches hold the source's keys and values already.
  virtual at::Tensor forward(const PackedBatch& batch, const EncodedSource* source, ForwardState& state) const = 0;
  // hidden rows (n, D) -> logits (n, V) in the compute dtype. Take only the rows you need: the head is a fifth of a
  // small model.
  virtual at::Tensor logits(const at::Tensor& hidden) const = 0;

  // Recompute blocks in the backward pass instead of keeping their activations (training memory).
  void set_checkpoint_blocks(bool checkpoint) { checkpoint_blocks_ = checkpoint; }

 protected:
  Backbone(BackboneConfig config, ComputeOptions compute);
  BackboneConfig config_;
  ComputeOptions compute_;
  std::vector<SlotName> slots_;
  bool checkpoint_blocks_ = false;

 private:
  friend std::unique_ptr<Backbone> load_backbone(const BaseModel& base, const ComputeOptions& compute);
  std::vector<ModelTensor> tensors_;
};

// The family's backbone with its weights read (with a progress bar when slow). Throws Failure.
std::unique_ptr<Backbone> load_backbone(const BaseModel& base, const ComputeOptions& compute);

}  // namespace skein
