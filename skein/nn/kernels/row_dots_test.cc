#include "skein/nn/kernels/row_dots.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/nn/kernels/each_target.h"

namespace skein {
namespace {

struct Case {
  std::int64_t rows, depth, outputs;
};
constexpr Case kCases[] = {
    {1, 1, 1},    {1, 576, 9}, {2, 31, 5}, {3, 64, 7},   {4, 40, 13},   {5, 33, 4},   {6, 96, 8},
    {7, 100, 11}, {8, 17, 3},  {9, 48, 6}, {11, 65, 10}, {13, 130, 17}, {67, 4000, 5}};  // the last: more than a chunk
                                                                                         // of rows

struct Inputs {
  std::vector<float> x, w, bias;  // x rows are depth + 3 apart
};

Inputs inputs_of(const Case& c) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Inputs inputs{std::vector<float>(c.rows * (c.depth + 3)), std::vector<float>(c.outputs * c.depth),
                std::vector<float>(c.outputs)};
  for (auto* values : {&inputs.x, &inputs.w, &inputs.bias}) {
    for (float& value : *values) value = bf16_to_f32(f32_to_bf16(normal(random)));  // the same inputs for both types
  }
  return inputs;
}

std::vector<std::uint16_t> narrow(const std::vector<float>& values) {
  std::vector<std::uint16_t> bits;
  for (const float value : values) bits.push_back(f32_to_bf16(value));
  return bits;
}

// Rows [first, first + rows) of the case through the kernel, in two calls over the outputs; y has the kernel's rows
// only.
std::vector<float> product(const Case& c, const Inputs& in, bool bf16, std::int64_t first, std::int64_t rows) {
  const RowDots shape{rows, c.depth, c.depth + 3, c.outputs};
  const std::int64_t middle = c.outputs / 3, offset = first * (c.depth + 3);
  std::vector<float> y(rows * c.outputs);
  if (!bf16) {
    row_dots_f32(shape, in.x.data() + offset, in.w.data(), in.bias.data(), y.data(), 0, middle);
    row_dots_f32(shape, in.x.data() + offset, in.w.data(), in.bias.data(), y.data(), middle, c.outputs);
    return y;
  }
  const auto x = narrow(in.x), w = narrow(in.w), bias = narrow(in.bias);
  std::vector<std::uint16_t> bits(y.size());
  row_dots_bf16(shape, x.data() + offset, w.data(), bias.data(), bits.data(), 0, middle);
  row_dots_bf16(shape, x.data() + offset, w.data(), bias.data(), bits.data(), middle, c.outputs);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = bf16_to_f32(bits[i]);
  return y;
}

TEST(RowDots, EqualsTheSumInDoublePrecision) {
  on_each_target([] {
    for (const Case& c : kCases) {
      const Inputs in = inputs_of(c);
      for (const bool bf16 : {false, true}) {
        const std::vector<float> y = product(c, in, bf16, 0, c.rows);
        for (std::int64_t row = 0; row < c.rows; ++row) {
          for (std::int64_t output = 0; output < c.outputs; ++output) {
            double expected = in.bias[output], magnitude = std::abs(expected);
            for (std::int64_t k = 0; k < c.depth; ++k) {
              const double term = static_cast<double>(in.x[row * (c.depth + 3) + k]) * in.w[output * c.depth + k];
              expected += term;
              magnitude += std::abs(term);
            }
            // Each of at most depth + 1 additions rounds a partial sum no larger than the sum of magnitudes; bf16 then
            // rounds the result to 8 bits.
            const double bound = (c.depth + 1) * 0x1p-24 * magnitude + (bf16 ? 0x1p-8 * std::abs(expected) : 0);
            ASSERT_NEAR(y[row * c.outputs + output], expected, bound)
                << c.rows << " x " << c.depth << " x " << c.outputs << " at " << row << ", " << output << " bf16 "
                << bf16;
          }
        }
      }
    }
  });
}

TEST(RowDots, GivesARowTheSameBitsInAnyCompany) {
  on_each_target([] {
    for (const Case& c : kCases) {
      const Inputs in = inputs_of(c);
      for (const bool bf16 : {false, true}) {
        const std::vector<float> together = product(c, in, bf16, 0, c.rows);
        for (std::int64_t first = 0; first < c.rows; first += first < 14 ? 1 : 17) {
          for (std::int64_t rows = 1; first + rows <= c.rows; rows = rows < 14 ? rows + 1 : 2 * rows) {
            const std::vector<float> some = product(c, in, bf16, first, rows);
            const std::vector<float> same(together.begin() + first * c.outputs,
                                          together.begin() + (first + rows) * c.outputs);
            ASSERT_EQ(some, same) << rows << " of " << c.rows << " rows from " << first << " bf16 " << bf16;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace skein
