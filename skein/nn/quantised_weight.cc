#include "skein/nn/quantised_weight.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "skein/base/check.h"
#include "skein/base/half.h"
#include "skein/nn/kernels/quantised_rows.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

constexpr float kLargestF16 = 65504;

std::uint8_t nearest_level(float value) {
  const auto above = std::lower_bound(kLevels, kLevels + 16, value) - kLevels;
  if (above == 0) return 0;
  if (above == 16) return 15;
  const float below = static_cast<float>(kLevels[above - 1]), beyond = static_cast<float>(kLevels[above]);
  return static_cast<std::uint8_t>(value - below <= beyond - value ? above - 1 : above);
}

// A row's numbers of one block, at most block_size(bits) -> its codes in the tile, zeros before; the scale returned.
std::uint16_t quantise_block(const float* values, std::int64_t count, int bits, std::int64_t row, std::uint8_t* tile) {
  float magnitude = 0;
  for (std::int64_t i = 0; i < count; ++i) magnitude = std::max(magnitude, std::abs(values[i]));
  const std::uint16_t scale = f32_to_f16(std::min(magnitude / 127, kLargestF16));
  const float inverse = f16_to_f32(scale) > 0 ? 1 / f16_to_f32(scale) : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = std::clamp(values[i] * inverse, -127.0F, 127.0F);
    std::uint8_t& code = tile[64 * (i % 32 / 4) + 4 * row + i % 4];
    if (bits == 8) {
      code = static_cast<std::uint8_t>(std::lrint(value) + 128);
    } else {
      code |= static_cast<std::uint8_t>(nearest_level(value) << (i / 32 * 4));
    }
  }
  return scale;
}

void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  restore_rows_f32(w, begin, end, out);
}
void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  restore_rows_bf16(w, begin, end, out);
}
void dots(const RowDots& shape, const float* x, const float* w, const float* bias, float* y, std::int64_t outputs) {
  row_dots_f32(shape, x, w, bias, y, 0, outputs);
}
void dots(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w, const std::uint16_t* bias,
          std::uint16_t* y, std::int64_t outputs) {
  row_dots_bf16(shape, x, w, bias, y, 0, outputs);
}

// Outputs [begin, end) with the restored numbers: some rows of w after the other in a buffer that stays in the cache,
// where all rows of x meet them.
template <typename T>
void restored_dots(const RowDots& shape, const T* x, const QuantisedRows& w, const T* bias, T* y, std::int64_t begin,
                   std::int64_t end) {
  constexpr std::int64_t kPanelBytes = 64 << 10, kGroup = QuantisedRows::kGroup;
  const std::int64_t row_bytes = std::max<std::int64_t>(1, w.depth * static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t panel = std::max<std::int64_t>(kGroup, kPanelBytes / row_bytes / kGroup * kGroup);
  thread_local std::vector<T> numbers;
  numbers.resize(static_cast<std::size_t>(panel * w.depth));
  for (std::int64_t first = begin; first < end; first += panel) {
    const std::int64_t count = std::min(panel, end - first);
    restore(w, first, first + count, numbers.data());
    dots(shape, x, numbers.data(), bias == nullptr ? nullptr : bias + first, y + first, count);
  }
}

template <typename T>
T* elements(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Rows [begin, end) of w -> out (N, K), from its row `to` on; f32 or bf16 as out is.
void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, const at::Tensor& out, std::int64_t to) {
  if (out.scalar_type() == c10::ScalarType::Float) {
    restore_rows_f32(w, begin, end, elements<float>(out) + to * w.depth);
  } else {
    restore_rows_bf16(w, begin, end, elements<std::uint16_t>(out) + to * w.depth);
  }
}

}  // namespace

QuantisedWeight::QuantisedWeight(const at::Tensor& weight, const QuantisedOptions& options)
    : bits_(options.bits),
      eight_bit_inputs_(options.eight_bit_inputs),
      num_rows_(weight.size(0)),
      num_columns_(weight.size(1)),
      memory_(options.memory) {
  SKEIN_CHECK((bits_ == 8 || bits_ == 4) && weight.dim() == 2 && weight.device().is_cpu());
  if (!memory_.defined()) memory_ = at::empty({num_bytes()}, c10::ScalarType::Byte);
  SKEIN_CHECK(memory_.scalar_type() == c10::ScalarType::Byte && memory_.is_contiguous());
  SKEIN_CHECK(memory_.numel() == num_bytes());
  memory_.zero_();
  const QuantisedRows to = kernel_rows();
  constexpr std::int64_t kGroup = QuantisedRows::kGroup;
  const std::int64_t block_size = QuantisedRows::block_size(bits_), groups = (num_rows_ + kGroup - 1) / kGroup;
  at::parallel_for(0, groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin * kGroup; row < std::min(end * kGroup, num_rows_); ++row) {
      const at::Tensor values = weight.select(0, row).to(at::kFloat).contiguous();
      const float* numbers = values.const_data_ptr<float>();
      for (std::int64_t block = 0; block < to.blocks(); ++block) {
        const std::int64_t first = block * block_size, count = std::min(block_size, num_columns_ - first);
        auto* tile = const_cast<std::uint8_t*>(to.tile(row / kGroup, block));
        auto* scales = const_cast<std::uint16_t*>(to.tile_scales(row / kGroup, block));
        scales[row % kGroup] = quantise_block(numbers + first, count, bits_, row % kGroup, tile);
      }
    }
  });
}

std::int64_t QuantisedWeight::bytes_of(std::int64_t rows, std::int64_t columns, int bits) {
  constexpr std::int64_t kGroup = QuantisedRows::kGroup;
  const std::int64_t tiles = (rows + kGroup - 1) / kGroup * QuantisedRows{.bits = bits, .depth = columns}.blocks();
  return tiles * (QuantisedRows::kTileBytes + kGroup * static_cast<std::int64_t>(sizeof(std::uint16_t)));
}

QuantisedRows QuantisedWeight::kernel_rows() const {
  constexpr std::int64_t kScaleBytes = QuantisedRows::kGroup * static_cast<std::int64_t>(sizeof(std::uint16_t));
  const auto* codes = memory_.const_data_ptr<std::uint8_t>();
  const auto* scales = codes + num_bytes() / (QuantisedRows::kTileBytes + kScaleBytes) * QuantisedRows::kTileBytes;
  return {bits_, num_columns_, codes, reinterpret_cast<const std::uint16_t*>(scales)};
}

at::Tensor QuantisedWeight::rows(std::int64_t first, std::int64_t count, c10::ScalarType dtype) const {
  SKEIN_CHECK(first >= 0 && first + count <= num_rows_);
  SKEIN_CHECK(dtype == c10::ScalarType::Float || dtype == c10::ScalarType::BFloat16);
  at::Tensor out = at::empty({count, num_columns_}, dtype);
  const QuantisedRows w = kernel_rows();
  at::parallel_for(0, count, 64,
                   [&](std::int64_t begin, std::int64_t end) { restore(w, first + begin, first + end, out, begin); });
  return out;
}

at::Tensor QuantisedWeight::rows(const at::Tensor& ids, c10::ScalarType dtype) const {
  SKEIN_CHECK(ids.dim() == 1 && ids.scalar_type() == c10::ScalarType::Long && ids.device().is_cpu());
  SKEIN_CHECK(dtype == c10::ScalarType::Float || dtype == c10::ScalarType::BFloat16);
  const at::Tensor plain = ids.contiguous();
  const auto* row_ids = plain.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < plain.numel(); ++i) SKEIN_CHECK(row_ids[i] >= 0 && row_ids[i] < num_rows_);
  at::Tensor out = at::empty({plain.numel(), num_columns_}, dtype);
  const QuantisedRows w = kernel_rows();
  parallel_rows(plain.numel(), num_columns_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) restore(w, row_ids[i], row_ids[i] + 1, out, i);
  });
  return out;
}

at::Tensor QuantisedWeight::product(const at::Tensor& input, const at::Tensor& bias,
                                    const std::function<void()>& beside) const {
  SKEIN_CHECK(has_kernels(input) && input.dim() == 2 && input.size(1) == num_columns_);
  SKEIN_CHECK(!bias.defined() || bias.scalar_type() == input.scalar_type());
  const at::Tensor x = with_plain_rows(input);
  at::Tensor y = at::empty({x.size(0), num_rows_}, x.options());
  const RowDots shape{x.size(0), num_columns_, x.stride(0), num_rows_};
  const QuantisedRows w = kernel_rows();
  constexpr std::int64_t kGroup = QuantisedRows::kGroup;
  const bool is_f32 = x.scalar_type() == c10::ScalarType::Float;
  if (!is_f32 && eight_bit_inputs_) {
    const EightBitInputs integers = eight_bit_inputs(data_or_null<std::uint16_t>(x), shape.rows, shape.x_stride, w);
    const auto multiply = [&](std::int64_t begin, std::int64_t end) {
      integer_dots(integers, w, data_or_null<std::uint16_t>(bias), elements<std::uint16_t>(y), shape.y_stride,
                   num_rows_, begin / kGroup, (end + kGroup - 1) / kGroup);
    };
    parallel_outputs(shape, num_rows_, kGroup, multiply, beside);
    return y;
  }
  const auto multiply = [&](std::int64_t begin, std::int64_t end) {
    if (is_f32) {
      restored_dots(shape, data_or_null<float>(x), w, data_or_null<float>(bias), elements<float>(y), begin, end);
    } else {
      restored_dots(shape, data_or_null<std::uint16_t>(x), w, data_or_null<std::uint16_t>(bias),
                    elements<std::uint16_t>(y), begin, end);
    }
  };
  parallel_outputs(shape, num_rows_, kGroup, multiply, beside);
  return y;
}

void QuantisedWeight::add_gradient(at::Tensor& sum, const at::Tensor& grad, std::int64_t first) const {
  constexpr std::int64_t kRowsAtOnce = 4096;  // restored in memory: 10 MB of a head, not all its vocabulary
  for (std::int64_t row = 0; row < grad.size(1); row += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, grad.size(1) - row);
    const at::Tensor numbers = rows(first + row, count, grad.scalar_type());
    const at::Tensor part = grad.narrow(1, row, count);
    if (sum.defined()) {
      sum.addmm_(part, numbers);
    } else {
      sum = at::mm(part, numbers);
    }
  }
}

}  // namespace skein
