#include "skein/serve/logit_rows.h"

#include <bit>
#include <cstring>

#include <ATen/ATen.h>

namespace skein {

LogitRows::LogitRows(const at::Tensor& logits) {
  const bool is_known = logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kBFloat16;
  logits_ = logits.to(at::kCPU, is_known ? logits.scalar_type() : at::kFloat).contiguous();
}

std::span<float> LogitRows::row(std::int64_t i, std::vector<float>& scratch) const {
  const auto width = static_cast<std::size_t>(logits_.size(1));
  scratch.resize(width);
  if (logits_.scalar_type() == at::kFloat) {
    std::memcpy(scratch.data(), logits_.const_data_ptr<float>() + i * logits_.size(1), width * sizeof(float));
    return scratch;
  }
  const auto* row = static_cast<const std::uint16_t*>(logits_.const_data_ptr()) + i * logits_.size(1);
  for (std::size_t j = 0; j < width; ++j) scratch[j] = std::bit_cast<float>(static_cast<std::uint32_t>(row[j]) << 16);
  return scratch;
}

}  // namespace skein
