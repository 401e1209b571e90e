#include "skein/nn/t5/relative_bias.h"

#include <cmath>

#include <ATen/ATen.h>

namespace skein {

RelativeBias::RelativeBias(WeightReader& weights, const BackboneConfig& config, bool bidirectional)
    : buckets_(config.relative_buckets),
      max_distance_(config.relative_max_distance),
      bidirectional_(bidirectional),
      table_(weights.next(TensorRole::kRelativeBias)) {}

at::Tensor RelativeBias::scores(std::int64_t past, std::int64_t queries, std::int64_t keys) const {
  // The bucket depends on key - query alone: one look-up per distance, then every row is a slice of it.
  std::vector<std::int64_t> bucket_of;  // of distances -(past + queries - 1) .. keys - 1 - past
  for (std::int64_t distance = -(past + queries - 1); distance < keys - past; ++distance) {
    bucket_of.push_back(relative_bucket(distance, bidirectional_, buckets_, max_distance_));
  }
  at::Tensor buckets = at::empty({queries, keys}, at::TensorOptions().dtype(c10::ScalarType::Long));
  std::int64_t* cell = buckets.mutable_data_ptr<std::int64_t>();
  for (std::int64_t query = 0; query < queries; ++query) {
    const std::int64_t* first = bucket_of.data() + (queries - 1 - query);
    cell = std::copy(first, first + keys, cell);
  }
  return at::embedding(table_, buckets.to(table_.device())).permute({2, 0, 1});
}

std::int64_t relative_bucket(std::int64_t distance, bool bidirectional, std::int64_t buckets,
                             std::int64_t max_distance) {
  std::int64_t first = 0;
  if (bidirectional) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    distance = std::abs(distance);
  } else {
    distance = -std::min<std::int64_t>(distance, 0);
  }
  const std::int64_t exact = buckets / 2;
  if (distance < exact) return first + distance;
  // In f32, as transformers rounds it: a border falls on the same side.
  const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const auto step = static_cast<std::int64_t>(ratio * static_cast<float>(buckets - exact));
  return first + std::min(exact + step, buckets - 1);
}

}  // namespace skein
