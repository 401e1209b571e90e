// Sequences side by side without padding: all tokens of a batch in one row dimension N, each sequence a segment of it.
// No row attends outside its segment, so the result for a sequence does not depend on its neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/forward_state.h"
#include "skein/spec/backbone_config.h"

namespace skein {

// Keys and values of one sequence, for incremental decoding.
class KvSequence {
 public:
  // Room for `capacity` tokens at first; grows as needed.
  KvSequence(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t capacity);
  std::int64_t length() const { return length_; }  // tokens stored in every layer

  // Appends k, v (T, Hkv, Dh) of the layer; returns all keys and values so far, (length + T, Hkv, Dh) each.
  std::pair<at::Tensor, at::Tensor> append(int layer, const at::Tensor& k, const at::Tensor& v);
  void advance(std::int64_t num_tokens);  // after the last layer

  // Encoder-decoder: keys and values of the source (S, H, Dh), computed once per layer.
  struct Cross {
    at::Tensor k, v;
  };
  std::vector<Cross> cross;  // empty until the first pass
  at::Tensor sentence;       // (D): the prompt's, kept for later tokens (forward_state.h); undefined: not asked

  std::shared_ptr<SlotMemory> slot_memory;  // what the filler remembers of this sequence

 private:
  void reserve(int layer, std::int64_t num_tokens);

  std::vector<at::Tensor> keys_, values_;  // per layer (capacity, Hkv, Dh)
  std::int64_t capacity_ = 0;
  std::int64_t length_ = 0;
};

struct Segment {
  std::int64_t begin = 0;   // first row of N
  std::int64_t length = 0;  // rows, branches included
  // A prompt with several continuations: the first length - sum(branches) rows are causal; each branch then sees the
  // prompt and itself, never another branch, at positions that continue the prompt. Empty: one causal sequence.
  std::vector<std::int64_t> branches;
  KvSequence* cache = nullptr;    // borrowed; earlier tokens of this sequence, extended by the call. Not with branches.
  std::int64_t source = -1;       // encoder-decoder: which segment of the source this one reads
  std::int64_t input_length = 0;  // rows that are the input (instruction and all), not its answer
  std::shared_ptr<const SequenceHint> hint = nullptr;  // for the filler
};

struct PackedBatch {
  at::Tensor ids;        // (N) int64
  at::Tensor positions;  // (N) int64: within the sequence
  std::vector<Segment> segments;
  std::int64_t num_tokens() const { return ids.defined() ? ids.size(0) : 0; }
};

struct SequenceInput {
  std::vector<std::int32_t> tokens;  // of the prompt (or the whole sequence)
  std::vector<std::vector<std::int32_t>> branches;
  KvSequence* cache = nullptr;
  std::int64_t source = -1;
  std::int64_t input_length = -1;  // of tokens, how many are the input; -1: all
  std::shared_ptr<const SequenceHint> hint = nullptr;
};
// Packs sequences in order; positions start at the cache's length (0 without).
PackedBatch pack(const std::vector<SequenceInput>& sequences, const c10::Device& device);

}  // namespace skein
