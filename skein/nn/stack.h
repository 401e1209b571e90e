// What the stacks of blocks have in common: running one block, telling the filler about rows, ending a pass over
// caches.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "skein/nn/forward_state.h"
#include "skein/nn/packed_batch.h"
#include "skein/nn/recompute.h"

namespace skein {

// block(inputs, state), recomputed in the backward pass if asked for. The second run sees the same filler but no
// memory: what is remembered is written once, in the forward pass.
template <typename Block>
at::Tensor run_block(bool recomputes, const std::vector<at::Tensor>& inputs, ForwardState& state, Block block) {
  if (!recomputes) return block(inputs, state);
  return recompute(
      [block, filler = state.filler, rows = state.rows,
       first = &state](const std::vector<at::Tensor>& block_inputs) mutable {
        if (ForwardState* forward_pass = std::exchange(first, nullptr)) return block(block_inputs, *forward_pass);
        ForwardState backward_pass{.filler = filler, .rows = rows};
        return block(block_inputs, backward_pass);
      },
      inputs);
}

// The sequences of a batch and what their fillers want to know; x (N, D): the embeddings of its tokens. A sequence
// whose beginning lies in a cache has its sentence there.
std::shared_ptr<const SequenceRows> sequence_rows(const std::vector<Segment>& segments, const at::Tensor& x,
                                                  const ForwardState& state);
// The same for a decoder: the sentences are those of the source that each sequence reads (null: all in caches).
std::shared_ptr<const SequenceRows> decoder_rows(const std::vector<Segment>& segments, const at::Tensor& x,
                                                 const SequenceRows* source, const ForwardState& state);

inline void advance_caches(const std::vector<Segment>& segments) {
  for (const Segment& segment : segments) {
    if (segment.cache != nullptr) segment.cache->advance(segment.length);
  }
}

}  // namespace skein
