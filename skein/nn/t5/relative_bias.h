// T5's relative position bias: a score per head and bucket of distance (arXiv 1910.10683, section 2.1).
#pragma once

#include <ATen/core/Tensor.h>

#include "skein/nn/attention.h"
#include "skein/nn/weight_reader.h"

namespace skein {

class RelativeBias : public ScoreBias {
 public:
  // bidirectional: half of the buckets are for keys after the query.
  RelativeBias(WeightReader& weights, const BackboneConfig& config, bool bidirectional);
  at::Tensor scores(std::int64_t past, std::int64_t queries, std::int64_t keys) const override;  // (H, queries, keys)

 private:
  std::int64_t buckets_, max_distance_;
  bool bidirectional_;
  at::Tensor table_;  // (buckets, H)
};

// The bucket of a key at query + distance: exact for small distances, logarithmic up to max_distance, then the last
// one.
std::int64_t relative_bucket(std::int64_t distance, bool bidirectional, std::int64_t buckets,
                             std::int64_t max_distance);

}  // namespace skein
