#include "skein/nn/quantised_weight.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "skein/base/check.h"
#include "skein/base/half.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

constexpr float kLargestF16 = 65504;

std::uint8_t nearest_level(float value) {
  const float* levels = kNormalFloatLevels;
  const auto above = std::lower_bound(levels, levels + 16, value) - levels;
  if (above == 0) return 0;
  if (above == 16) return 15;
  return static_cast<std::uint8_t>(value - levels[above - 1] <= levels[above] - value ? above - 1 : above);
}

// count numbers, at most a block's -> 32 bytes of codes, zeros before; the scale returned.
std::uint16_t quantise_block(const float* values, std::int64_t count, int bits, std::uint8_t* codes) {
  float magnitude = 0;
  for (std::int64_t i = 0; i < count; ++i) magnitude = std::max(magnitude, std::abs(values[i]));
  const std::uint16_t scale = f32_to_f16(std::min(bits == 8 ? magnitude / 127 : magnitude, kLargestF16));
  const float inverse = f16_to_f32(scale) > 0 ? 1 / f16_to_f32(scale) : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = values[i] * inverse;
    if (bits == 8) {
      codes[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::lrint(std::clamp(value, -127.0F, 127.0F))));
    } else {
      codes[i % 32] |= static_cast<std::uint8_t>(nearest_level(value) << (i / 32 * 4));
    }
  }
  return scale;
}

void restore_rows(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  restore_rows_f32(w, begin, end, out);
}
void restore_rows(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  restore_rows_bf16(w, begin, end, out);
}

// Row row_of(i) of w -> row i of out (count, K): restored beside it, as the kernels write whole blocks.
template <typename T, typename RowOf>
void restore_each(const QuantisedRows& w, std::int64_t count, T* out, const RowOf& row_of) {
  parallel_rows(count, w.depth, [&](std::int64_t begin, std::int64_t end) {
    std::vector<T> numbers(static_cast<std::size_t>(w.depth + QuantisedRows::block_size(w.bits)));
    for (std::int64_t i = begin; i < end; ++i) {
      restore_rows(w, row_of(i), row_of(i) + 1, numbers.data());
      std::copy_n(numbers.data(), w.depth, out + i * w.depth);
    }
  });
}

template <typename RowOf>
at::Tensor restored(const QuantisedRows& w, std::int64_t count, c10::ScalarType dtype, const RowOf& row_of) {
  SKEIN_CHECK(dtype == c10::ScalarType::Float || dtype == c10::ScalarType::BFloat16);
  at::Tensor out = at::empty({count, w.depth}, dtype);
  if (dtype == c10::ScalarType::Float) {
    restore_each(w, count, out.mutable_data_ptr<float>(), row_of);
  } else {
    restore_each(w, count, static_cast<std::uint16_t*>(out.mutable_data_ptr()), row_of);
  }
  return out;
}

}  // namespace

QuantisedWeight::QuantisedWeight(const at::Tensor& weight, int bits, const at::Tensor& memory)
    : bits_(bits), num_rows_(weight.size(0)), num_columns_(weight.size(1)), memory_(memory) {
  SKEIN_CHECK((bits == 8 || bits == 4) && weight.dim() == 2 && weight.device().is_cpu());
  if (!memory_.defined()) memory_ = at::empty({num_bytes()}, c10::ScalarType::Byte);
  SKEIN_CHECK(memory_.scalar_type() == c10::ScalarType::Byte && memory_.is_contiguous());
  SKEIN_CHECK(memory_.numel() == num_bytes());
  memory_.zero_();
  const QuantisedRows to = kernel_rows();
  const std::int64_t blocks = to.blocks(), block_size = QuantisedRows::block_size(bits);
  auto* codes = const_cast<std::uint8_t*>(to.codes);
  auto* scales = const_cast<std::uint16_t*>(to.scales);
  parallel_rows(num_rows_, num_columns_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const at::Tensor values = weight.select(0, row).to(at::kFloat).contiguous();
      const float* numbers = values.const_data_ptr<float>();
      for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t first = block * block_size, index = row * blocks + block;
        scales[index] = quantise_block(numbers + first, std::min(block_size, num_columns_ - first), bits_,
                                       codes + index * QuantisedRows::kBlockBytes);
      }
    }
  });
}

std::int64_t QuantisedWeight::bytes_of(std::int64_t rows, std::int64_t columns, int bits) {
  const QuantisedRows shape{.bits = bits, .depth = columns};
  return rows * shape.blocks() * (QuantisedRows::kBlockBytes + static_cast<std::int64_t>(sizeof(std::uint16_t)));
}

QuantisedRows QuantisedWeight::kernel_rows() const {
  const QuantisedRows shape{.bits = bits_, .depth = num_columns_};
  const auto* codes = memory_.const_data_ptr<std::uint8_t>();
  const auto* scales = codes + num_rows_ * shape.blocks() * QuantisedRows::kBlockBytes;
  return {bits_, num_columns_, codes, reinterpret_cast<const std::uint16_t*>(scales)};
}

at::Tensor QuantisedWeight::rows(std::int64_t first, std::int64_t count, c10::ScalarType dtype) const {
  SKEIN_CHECK(first >= 0 && first + count <= num_rows_);
  return restored(kernel_rows(), count, dtype, [&](std::int64_t i) { return first + i; });
}

at::Tensor QuantisedWeight::rows(const at::Tensor& ids, c10::ScalarType dtype) const {
  SKEIN_CHECK(ids.dim() == 1 && ids.scalar_type() == c10::ScalarType::Long && ids.device().is_cpu());
  const at::Tensor plain = ids.contiguous();
  const auto* row_ids = plain.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < plain.numel(); ++i) SKEIN_CHECK(row_ids[i] >= 0 && row_ids[i] < num_rows_);
  return restored(kernel_rows(), plain.numel(), dtype, [&](std::int64_t i) { return row_ids[i]; });
}

at::Tensor QuantisedWeight::product(const at::Tensor& input, const at::Tensor& bias) const {
  SKEIN_CHECK(has_kernels(input) && input.dim() == 2 && input.size(1) == num_columns_);
  SKEIN_CHECK(!bias.defined() || bias.scalar_type() == input.scalar_type());
  const at::Tensor x = with_plain_rows(input);
  at::Tensor y = at::empty({x.size(0), num_rows_}, x.options());
  const RowDots shape{x.size(0), num_columns_, x.stride(0), num_rows_};
  const QuantisedRows w = kernel_rows();
  parallel_outputs(shape, num_rows_, [&](std::int64_t begin, std::int64_t end) {
    if (x.scalar_type() == c10::ScalarType::Float) {
      quantised_dots_f32(shape, x.const_data_ptr<float>(), w, data_or_null<float>(bias), y.mutable_data_ptr<float>(),
                         begin, end);
    } else {
      quantised_dots_bf16(shape, data_or_null<std::uint16_t>(x), w, data_or_null<std::uint16_t>(bias),
                          static_cast<std::uint16_t*>(y.mutable_data_ptr()), begin, end);
    }
  });
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
