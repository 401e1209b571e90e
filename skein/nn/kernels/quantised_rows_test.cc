#include "skein/nn/kernels/quantised_rows.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/nn/kernels/each_target.h"

namespace skein {
namespace {

constexpr std::int64_t kDepths[] = {1, 31, 32, 40, 64, 65, 100, 130, 576};
constexpr std::int64_t kGroup = QuantisedRows::kGroup;

struct Matrix {
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scales;
  QuantisedRows rows;
};

// Codes of all kinds, also where there is no column.
Matrix random_matrix(int bits, std::int64_t outputs, std::int64_t depth) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> byte(1, 255);
  std::uniform_real_distribution<float> scale(0.001F, 2);
  Matrix matrix;
  matrix.rows = {.bits = bits, .depth = depth};
  const std::int64_t tiles = (outputs + kGroup - 1) / kGroup * matrix.rows.blocks();
  for (std::int64_t i = 0; i < tiles * QuantisedRows::kTileBytes; ++i) {
    matrix.codes.push_back(static_cast<std::uint8_t>(byte(random)));
  }
  for (std::int64_t i = 0; i < tiles * kGroup; ++i) {
    matrix.scales.push_back(f32_to_f16(i % 7 == 3 ? 3e-7F : scale(random)));  // also f16's subnormal numbers
  }
  matrix.rows.codes = matrix.codes.data();
  matrix.rows.scales = matrix.scales.data();
  return matrix;
}

// By the definition, number by number.
float number(const QuantisedRows& w, std::int64_t row, std::int64_t column) {
  const std::int64_t size = QuantisedRows::block_size(w.bits), block = column / size, i = column % size;
  const std::uint8_t code = w.tile(row / kGroup, block)[64 * (i % 32 / 4) + 4 * (row % kGroup) + i % 4];
  const int integer = w.bits == 8 ? code - 128 : kLevels[i < 32 ? code & 15 : code >> 4];
  return static_cast<float>(integer) * f16_to_f32(w.tile_scales(row / kGroup, block)[row % kGroup]);
}

TEST(QuantisedRows, RestoresEachNumberByItsDefinition) {
  on_each_target([] {
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : kDepths) {
        const Matrix matrix = random_matrix(bits, 40, depth);
        for (const auto& [begin, end] : {std::pair{0, 40}, {3, 5}, {13, 35}, {39, 40}}) {
          std::vector<float> wide((end - begin) * depth + 1, -7);
          std::vector<std::uint16_t> narrow(wide.size(), 7);
          restore_rows_f32(matrix.rows, begin, end, wide.data());
          restore_rows_bf16(matrix.rows, begin, end, narrow.data());
          for (std::int64_t i = 0; i < (end - begin) * depth; ++i) {
            const float expected = number(matrix.rows, begin + i / depth, i % depth);
            ASSERT_EQ(wide[i], expected) << bits << " bits, depth " << depth << " at " << i;
            ASSERT_EQ(narrow[i], f32_to_bf16(expected)) << bits << " bits, depth " << depth << " at " << i;
          }
          EXPECT_EQ(wide.back(), -7) << "written beyond the end";
          EXPECT_EQ(narrow.back(), 7) << "written beyond the end";
        }
      }
    }
  });
}

std::vector<std::uint16_t> random_inputs(std::int64_t count) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> bits;
  for (std::int64_t i = 0; i < count; ++i) bits.push_back(f32_to_bf16(normal(random) * (i % 50 == 0 ? 30.0F : 1.0F)));
  return bits;
}

TEST(EightBitInputs, AreTheNearestIntegersOfEachBlock) {
  on_each_target([] {
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : kDepths) {
        const std::int64_t rows = 3, stride = depth + 3;
        const Matrix matrix = random_matrix(bits, 1, depth);
        std::vector<std::uint16_t> x = random_inputs(rows * stride);
        for (std::int64_t i = 0; i < std::min<std::int64_t>(depth, 32); ++i) x[stride + i] = 0;
        const EightBitInputs found = eight_bit_inputs(x.data(), rows, stride, matrix.rows);
        EXPECT_EQ(found.blocks, matrix.rows.blocks() * (bits == 8 ? 1 : 2));
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t block = 0; block < found.blocks; ++block) {
            const std::int64_t index = row * found.blocks + block;
            float magnitude = 0;
            std::int32_t sum = 0;
            for (std::int64_t column = 32 * block; column < 32 * block + 32; ++column) {
              const int integer = found.numbers[row * found.blocks * 32 + column];
              const float value = column < depth ? bf16_to_f32(x[row * stride + column]) : 0;
              magnitude = std::max(magnitude, std::abs(value));
              sum += integer;
              // Half a step, and the rounding of x / s.
              ASSERT_NEAR(static_cast<float>(integer) * found.scales[index], value, 0.50002F * found.scales[index]);
            }
            ASSERT_FLOAT_EQ(found.scales[index], magnitude / 127);
            ASSERT_EQ(found.offsets[index], -128 * sum);
          }
        }
      }
    }
  });
}

TEST(EightBitInputs, CarryNaNAndInfinityOn) {
  on_each_target([] {
    const Matrix matrix = random_matrix(8, 5, 100);
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t place : {0, 31, 50, 99}) {
        std::vector<std::uint16_t> x = random_inputs(200), y(10);
        x[100 + place] = f32_to_bf16(value);
        integer_dots(eight_bit_inputs(x.data(), 2, 100, matrix.rows), matrix.rows, nullptr, y.data(), 5, 5, 0, 1);
        for (int i = 0; i < 10; ++i) EXPECT_EQ(std::isnan(bf16_to_f32(y[i])), i >= 5) << place << " at " << i;
      }
    }
  });
}

// Rows [first, first + rows) of x through the kernel, the groups in two calls; y has the kernel's rows only.
std::vector<std::uint16_t> product(const Matrix& matrix, std::int64_t outputs, const std::vector<std::uint16_t>& x,
                                   const std::vector<std::uint16_t>& bias, std::int64_t first, std::int64_t rows) {
  const std::int64_t stride = matrix.rows.depth + 3, groups = (outputs + kGroup - 1) / kGroup;
  std::vector<std::uint16_t> y(rows * outputs);
  const EightBitInputs in = eight_bit_inputs(x.data() + first * stride, rows, stride, matrix.rows);
  integer_dots(in, matrix.rows, bias.data(), y.data(), outputs, outputs, 0, 1);
  integer_dots(in, matrix.rows, bias.data(), y.data(), outputs, outputs, 1, groups);
  return y;
}

TEST(IntegerDots, EqualTheSumInDoublePrecision) {
  on_each_target([] {
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : kDepths) {
        const std::int64_t rows = 14, outputs = 37;
        const Matrix matrix = random_matrix(bits, outputs, depth);
        const auto x = random_inputs(rows * (depth + 3)), bias = random_inputs(outputs);
        const EightBitInputs in = eight_bit_inputs(x.data(), rows, depth + 3, matrix.rows);
        const auto y = product(matrix, outputs, x, bias, 0, rows);
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t m = 0; m < outputs; ++m) {
            double expected = bf16_to_f32(bias[m]), magnitude = std::abs(expected);
            for (std::int64_t k = 0; k < depth; ++k) {
              const std::int64_t block = row * in.blocks + k / 32;
              const double term = static_cast<double>(in.numbers[32 * block + k % 32]) * in.scales[block] *
                                  static_cast<double>(number(matrix.rows, m, k));
              expected += term;
              magnitude += std::abs(term);
            }
            // A block's sum of integers is exact; its factor, its product and its addition round, and the bias; bf16
            // then rounds the result to 8 bits.
            const double bound = (3 * in.blocks + 1) * 0x1p-24 * magnitude + 0x1p-8 * std::abs(expected);
            ASSERT_NEAR(bf16_to_f32(y[row * outputs + m]), expected, bound)
                << bits << " bits, depth " << depth << " at " << row << ", " << m;
          }
        }
      }
    }
  });
}

TEST(IntegerDots, GiveARowTheSameBitsInAnyCompany) {
  on_each_target([] {
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : {40, 130}) {
        const std::int64_t rows = 40, outputs = 21;
        const Matrix matrix = random_matrix(bits, outputs, depth);
        const auto x = random_inputs(rows * (depth + 3)), bias = random_inputs(outputs);
        const auto together = product(matrix, outputs, x, bias, 0, rows);
        for (const std::int64_t first : {0, 1, 7, 20}) {
          for (const std::int64_t count : {1, 2, 3, 5, 11, 12, 13, 20}) {
            const std::vector<std::uint16_t> same(together.begin() + first * outputs,
                                                  together.begin() + (first + count) * outputs);
            ASSERT_EQ(product(matrix, outputs, x, bias, first, count), same) << count << " rows from " << first;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace skein
