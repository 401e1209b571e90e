// Sequences side by side without padding: all tokens of a batch in one row dimension N, each sequence a segment of it.
// No row attends outside its segment, so the result for a sequence does not depend on its neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/forward_state.h"
#include "skein/nn/kv_cache.h"

namespace skein {

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
  const SlotFiller* filler = nullptr;                  // where sequences differ in it; null: the pass's
  // With a cache: rows that were generated and are computed again. Each is attended as it was, alone, so that it comes
  // out the same to the last bit (one row and many have kernels of their own).
  bool rows_apart = false;
};

// The sequences of one stream of rows, as the fillers of slots know them.
struct SequenceRows {
  std::vector<Segment> segments;
  // Of those that ask (SlotFiller::wanted_facts), else undefined.
  at::Tensor sequence_of;  // (N) int64
  at::Tensor sentence;     // (sequences, D): mean embedding of the input's tokens, in the compute dtype
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
  const SlotFiller* filler = nullptr;
  bool rows_apart = false;
};
// Packs sequences in order; positions start at the cache's length (0 without).
PackedBatch pack(const std::vector<SequenceInput>& sequences, const c10::Device& device);

}  // namespace skein
