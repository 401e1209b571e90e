#include "skein/nn/kernels/quantised_rows.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/nn/kernels/each_target.h"

namespace skein {
namespace {

constexpr std::int64_t kDepths[] = {1, 31, 32, 40, 64, 65, 100, 130, 576, 2100, 4200};  // the last: scales in two parts

struct Matrix {
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scales;
  QuantisedRows rows;
};

Matrix random_matrix(int bits, std::int64_t outputs, std::int64_t depth) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> byte(0, 255);
  std::uniform_real_distribution<float> scale(0.001F, 2);
  Matrix matrix;
  matrix.rows = {.bits = bits, .depth = depth};
  const std::int64_t blocks = outputs * matrix.rows.blocks();
  for (std::int64_t block = 0; block < blocks; ++block) {
    matrix.scales.push_back(f32_to_f16(block % 7 == 3 ? 3e-7F : scale(random)));  // also f16's subnormal numbers
    for (std::int64_t i = 0; i < QuantisedRows::kBlockBytes; ++i) {
      const int value = byte(random);
      matrix.codes.push_back(static_cast<std::uint8_t>(value == 128 ? 0 : value));
    }
  }
  matrix.rows.codes = matrix.codes.data();
  matrix.rows.scales = matrix.scales.data();
  return matrix;
}

// By the definition, number by number.
float number(const QuantisedRows& w, std::int64_t row, std::int64_t column) {
  const std::int64_t size = QuantisedRows::block_size(w.bits), block = row * w.blocks() + column / size;
  const std::uint8_t* codes = w.codes + block * QuantisedRows::kBlockBytes;
  const float scale = f16_to_f32(w.scales[block]);
  const std::int64_t i = column % size;
  if (w.bits == 8) return static_cast<float>(static_cast<std::int8_t>(codes[i])) * scale;
  return kNormalFloatLevels[i < 32 ? codes[i] & 15 : codes[i - 32] >> 4] * scale;
}

TEST(QuantisedRows, RestoresEachNumberByItsDefinition) {
  on_each_target([] {
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : kDepths) {
        const Matrix matrix = random_matrix(bits, 5, depth);
        const std::size_t room = 4 * depth + QuantisedRows::block_size(bits);
        std::vector<float> wide(room);
        std::vector<std::uint16_t> narrow(room);
        restore_rows_f32(matrix.rows, 1, 5, wide.data());
        restore_rows_bf16(matrix.rows, 1, 5, narrow.data());
        for (std::int64_t i = 0; i < 4 * depth; ++i) {
          const float expected = number(matrix.rows, 1 + i / depth, i % depth);
          ASSERT_EQ(wide[i], expected) << bits << " bits, depth " << depth << " at " << i;
          ASSERT_EQ(narrow[i], f32_to_bf16(expected)) << bits << " bits, depth " << depth << " at " << i;
        }
      }
    }
  });
}

// y, whose outputs [0, middle) and [middle, outputs) are made in two calls.
template <typename T, typename Dots>
std::vector<T> in_two_calls(std::int64_t rows, std::int64_t outputs, const Dots& dots) {
  std::vector<T> y(rows * outputs);
  dots(y.data(), 0, outputs / 3);
  dots(y.data(), outputs / 3, outputs);
  return y;
}

template <typename T, typename Restore, typename Dots, typename QuantisedDots>
void expect_same_bits(const Matrix& matrix, std::int64_t rows, std::int64_t outputs, const std::vector<T>& x,
                      const std::vector<T>& bias, const Restore& restore, const Dots& dots,
                      const QuantisedDots& quantised_dots) {
  const std::int64_t depth = matrix.rows.depth;
  const RowDots shape{rows, depth, depth + 3, outputs};
  std::vector<T> w(outputs * depth + QuantisedRows::block_size(matrix.rows.bits));
  restore(matrix.rows, 0, outputs, w.data());
  const auto expected = in_two_calls<T>(rows, outputs, [&](T* y, std::int64_t begin, std::int64_t end) {
    dots(shape, x.data(), w.data(), bias.data(), y, begin, end);
  });
  const auto found = in_two_calls<T>(rows, outputs, [&](T* y, std::int64_t begin, std::int64_t end) {
    quantised_dots(shape, x.data(), matrix.rows, bias.data(), y, begin, end);
  });
  ASSERT_EQ(found, expected) << matrix.rows.bits << " bits, " << rows << " x " << depth << " x " << outputs;
}

TEST(QuantisedRows, AProductHasTheBitsOfThatWithTheRestoredNumbers) {
  on_each_target([] {
    std::mt19937 random(8);
    std::normal_distribution<float> normal;
    for (const int bits : {8, 4}) {
      for (const std::int64_t depth : kDepths) {
        for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 9, 40}) {
          const std::int64_t outputs = depth == 2100 ? 40 : 11;  // 40: more than a panel
          const Matrix matrix = random_matrix(bits, outputs, depth);
          std::vector<float> x(rows * (depth + 3)), bias(outputs);
          std::vector<std::uint16_t> narrow_x, narrow_bias;
          for (float& value : x) narrow_x.push_back(f32_to_bf16(value = normal(random)));
          for (float& value : bias) narrow_bias.push_back(f32_to_bf16(value = normal(random)));
          expect_same_bits(matrix, rows, outputs, x, bias, restore_rows_f32, row_dots_f32, quantised_dots_f32);
          expect_same_bits(matrix, rows, outputs, narrow_x, narrow_bias, restore_rows_bf16, row_dots_bf16,
                           quantised_dots_bf16);
        }
      }
    }
  });
}

}  // namespace
}  // namespace skein
