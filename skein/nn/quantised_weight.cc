#include "skein/nn/quantised_weight.h"

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>

#include "skein/base/check.h"

namespace skein {
namespace {

std::uint8_t nearest_level(float value) {
  const float* levels = QuantisedWeight::kLevels;
  const auto above = std::lower_bound(levels, levels + 16, value) - levels;
  if (above == 0) return 0;
  if (above == 16) return 15;
  return static_cast<std::uint8_t>(value - levels[above - 1] <= levels[above] - value ? above - 1 : above);
}

void quantise_block(const float* values, std::int64_t count, int bits, float magnitude, std::int64_t first_column,
                    std::uint8_t* row_codes) {
  const float inverse = magnitude > 0 ? 1 / magnitude : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t column = first_column + i;
    if (bits == 8) {
      row_codes[column] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::lrint(127 * values[i] * inverse)));
    } else {
      row_codes[column / 2] |= static_cast<std::uint8_t>(nearest_level(values[i] * inverse) << (column % 2 * 4));
    }
  }
}

template <typename T>
void restore_block(const std::uint8_t* row_codes, std::int64_t first_column, std::int64_t count, int bits,
                   float magnitude, T* out) {
  if (bits == 8) {
    const float step = magnitude / 127;
    for (std::int64_t i = 0; i < count; ++i) {
      out[first_column + i] =
          static_cast<T>(static_cast<float>(static_cast<std::int8_t>(row_codes[first_column + i])) * step);
    }
    return;
  }
  T scaled[16];
  for (int level = 0; level < 16; ++level) scaled[level] = static_cast<T>(QuantisedWeight::kLevels[level] * magnitude);
  for (std::int64_t column = first_column; column < first_column + count; ++column) {
    out[column] = scaled[row_codes[column / 2] >> (column % 2 * 4) & 15];
  }
}

}  // namespace

const float QuantisedWeight::kLevels[16] = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

QuantisedWeight::QuantisedWeight(const at::Tensor& weight, int bits)
    : bits_(bits), num_rows_(weight.size(0)), num_columns_(weight.size(1)) {
  SKEIN_CHECK((bits == 8 || bits == 4) && weight.dim() == 2 && weight.device().is_cpu());
  codes_.assign(static_cast<std::size_t>(num_rows_ * bytes_per_row()), 0);
  magnitudes_.assign(static_cast<std::size_t>(num_rows_ * blocks_per_row()), 0);
  at::parallel_for(0, num_rows_, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const at::Tensor values = weight.select(0, row).to(at::kFloat).contiguous();
      const float* row_values = values.const_data_ptr<float>();
      for (std::int64_t block = 0; block < blocks_per_row(); ++block) {
        const std::int64_t first = block * kBlock, count = std::min(kBlock, num_columns_ - first);
        float magnitude = 0;
        for (std::int64_t i = 0; i < count; ++i) magnitude = std::max(magnitude, std::abs(row_values[first + i]));
        magnitudes_[row * blocks_per_row() + block] = magnitude;
        quantise_block(row_values + first, count, bits_, magnitude, first, codes_.data() + row * bytes_per_row());
      }
    }
  });
}

at::Tensor QuantisedWeight::rows(std::int64_t first_row, std::int64_t count, c10::ScalarType dtype) const {
  SKEIN_CHECK(first_row >= 0 && first_row + count <= num_rows_);
  at::Tensor out = at::empty({count, num_columns_}, dtype);
  const auto restore = [&](auto* data) {
    at::parallel_for(0, count, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::uint8_t* codes = codes_.data() + (first_row + row) * bytes_per_row();
        for (std::int64_t block = 0; block < blocks_per_row(); ++block) {
          const std::int64_t first = block * kBlock;
          restore_block(codes, first, std::min(kBlock, num_columns_ - first), bits_,
                        magnitudes_[(first_row + row) * blocks_per_row() + block], data + row * num_columns_);
        }
      }
    });
  };
  if (dtype == c10::ScalarType::BFloat16) {
    restore(out.mutable_data_ptr<c10::BFloat16>());
  } else {
    SKEIN_CHECK(dtype == c10::ScalarType::Float);
    restore(out.mutable_data_ptr<float>());
  }
  return out;
}

std::int64_t QuantisedWeight::num_bytes() const {
  return static_cast<std::int64_t>(codes_.size() + magnitudes_.size() * sizeof(float));
}

}  // namespace skein
