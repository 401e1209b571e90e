// Attention over packed segments: no row sees outside its own sequence.
//
// What is the same in every layer of a pass (which rows form a sequence, which of them see which) is worked out once,
// as an AttentionPlan; neighbouring sequences of equal length are attended in one call.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/packed_batch.h"

namespace skein {

// `count` sequences of `length` query rows each, side by side from row `begin`.
struct AttentionRun {
  std::int64_t begin = 0, count = 1, length = 0;
  std::int64_t key_begin = 0, key_length = 0;  // their keys: `count` sequences of key_length rows from key_begin
  KvSequence* cache = nullptr;  // keys come from here instead, after this pass's were appended (count = 1)
  bool causal = false;          // the last query stands at the last key and sees none after its own
  std::int64_t window = 0;      // with causal: keys seen, the query's own included; 0: all
  bool rows_apart = false;      // with a cache and no mask: row by row, as decoding steps computed them or do
  at::Tensor mask;              // (1, 1 or H, length, keys) added to the scores; undefined: none
  at::Tensor dense_mask;        // causal, window and mask as one; undefined: none, or a plain triangle (causal)
};

struct AttentionPlan {
  std::vector<AttentionRun> runs;
  bool cross = false;  // caches give their source's keys and values
  bool has_cache() const;
};

struct PlanOptions {
  bool causal = true;
  std::int64_t window = 0;  // a query sees this many tokens, itself included; 0: all
  // Of masks: f32 on the CPU, whose kernels take causal and window as numbers; elsewhere the compute dtype.
  at::TensorOptions mask_options;
  bool dense = true;  // make dense masks: for gradients, and for devices without kernels of ours
};
// For weights like these, as grad mode is now.
PlanOptions plan_options(const at::TensorOptions& weights, bool causal, std::int64_t window);

// A bias on the scores by distance: (H, queries, keys) for queries at positions past..past + queries - 1.
class ScoreBias {
 public:
  virtual ~ScoreBias() = default;
  virtual at::Tensor scores(std::int64_t past, std::int64_t queries, std::int64_t keys) const = 0;
};

// bias: may be null.
std::shared_ptr<const AttentionPlan> plan_self_attention(const std::vector<Segment>& segments,
                                                         const PlanOptions& options, const ScoreBias* bias = nullptr);
// Each segment reads source.at(segment.source) whole.
std::shared_ptr<const AttentionPlan> plan_cross_attention(const std::vector<Segment>& segments,
                                                          const std::vector<Segment>& source);

// q (N, H, Dh), k and v (S, Hkv, Dh); rows may be strided, heads contiguous -> (N, H * Dh). Scores times `scale`.
// On the CPU a sequence's rows are the same bits alone and packed, and in pieces of two rows or more as in one. layer:
// of the caches. Differentiable in q, k, v and in a bias that asks for a gradient, unless the plan has caches.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::shared_ptr<const AttentionPlan>& plan, int layer, double scale);

}  // namespace skein
