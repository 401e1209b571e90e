#include "skein/experts/lora_kernels.h"

#include <cmath>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"

namespace skein {
namespace {

float widen(float value) { return value; }
float widen(std::uint16_t value) { return bf16_to_f32(value); }
void narrow(float value, float& to) { to = value; }
void narrow(float value, std::uint16_t& to) { to = f32_to_bf16(value); }

template <typename T>
std::vector<T> random_elements(std::int64_t count, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& value : values) narrow(normal(generator), value);
  return values;
}

// Every kernel of one element type that this machine can run.
template <typename T>
std::vector<const LoraKernels<T>*> all_kernels();
template <>
std::vector<const LoraKernels<float>*> all_kernels() {
  return {&lora_kernels_f32()};
}
template <>
std::vector<const LoraKernels<std::uint16_t>*> all_kernels() {
  std::vector<const LoraKernels<std::uint16_t>*> kernels{&lora_kernels_bf16_portable()};
  if (lora_kernels_bf16_avx512()) kernels.push_back(lora_kernels_bf16_avx512());
  return kernels;
}

// One rounding of a stored z, or none beyond f32's own.
template <typename T>
constexpr double kRounding = sizeof(T) == 2 ? 0x1p-8 : 0;

template <typename T>
class LoraKernelsOf : public ::testing::Test {};
using Elements = ::testing::Types<float, std::uint16_t>;
TYPED_TEST_SUITE(LoraKernelsOf, Elements);

TYPED_TEST(LoraKernelsOf, PackingGivesEveryElementItsOwnPlace) {
  constexpr std::int64_t kPack = LoraKernels<TypeParam>::kPack;
  for (const std::int64_t rank : {1, 3, 16, 17, 40}) {
    for (const std::int64_t width : {1, 15, 64, 65, 200}) {
      std::set<std::int64_t> a_places, b_places;
      for (std::int64_t r = 0; r < rank; ++r) {
        for (std::int64_t i = 0; i < width; ++i) {
          a_places.insert(packed_a_index(r, i, width, kPack));
          b_places.insert(packed_b_index(r, i, rank, width, kPack));
        }
      }
      EXPECT_EQ(static_cast<std::int64_t>(a_places.size()), rank * width);
      EXPECT_EQ(static_cast<std::int64_t>(b_places.size()), rank * width);
      EXPECT_LT(*a_places.rbegin(), packed_a_size(rank, width, kPack));
      EXPECT_LT(*b_places.rbegin(), packed_b_size(rank, width, kPack));
    }
  }
}

TYPED_TEST(LoraKernelsOf, ShrinkEqualsPlainLoops) {
  using T = TypeParam;
  std::mt19937 generator(1);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    for (const std::int64_t d_in : {1, 2, 7, 33, 96}) {
      for (const std::int64_t rank : {1, 8, 16, 20}) {
        const std::int64_t num_rows = 23;
        const std::int64_t stride = d_in + 3;
        const auto x = random_elements<T>(num_rows * stride, generator);
        const auto plain = random_elements<T>(rank * d_in, generator);  // (R, D_in)
        std::vector<T> a(packed_a_size(rank, d_in, LoraKernels<T>::kPack), T(0));
        for (std::int64_t r = 0; r < rank; ++r) {
          for (std::int64_t d = 0; d < d_in; ++d) {
            a[packed_a_index(r, d, d_in, LoraKernels<T>::kPack)] = plain[r * d_in + d];
          }
        }
        const std::int64_t z_stride = round_up(rank, kRankBlock);
        for (std::int64_t count = 1; count <= 19; ++count) {
          std::vector<std::int32_t> rows;
          std::vector<float> weights;
          for (std::int64_t i = 0; i < count; ++i) {
            rows.push_back(static_cast<std::int32_t>((i * 7 + 2) % num_rows));
            weights.push_back(0.25F + 0.1F * static_cast<float>(i));
          }
          std::vector<T> z(count * z_stride);
          kernels->shrink(a.data(), d_in, x.data(), stride, rows.data(), weights.data(), count, z.data(), z_stride);
          for (std::int64_t i = 0; i < count; ++i) {
            for (std::int64_t r = 0; r < rank; ++r) {
              double sum = 0;
              double size = 0;
              for (std::int64_t d = 0; d < d_in; ++d) {
                const double term = double(widen(plain[r * d_in + d])) * widen(x[rows[i] * stride + d]) * weights[i];
                sum += term;
                size += std::abs(term);
              }
              // d_in sums and products of f32 and the rounding of z.
              const double bound = size * (static_cast<double>(d_in + 3) * 0x1p-24 + kRounding<T>);
              ASSERT_NEAR(widen(z[i * z_stride + r]), sum, bound) << "row " << i << " of " << count << ", rank " << r;
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(LoraKernelsOf, ExpandEqualsPlainLoops) {
  using T = TypeParam;
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::mt19937 generator(2);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    for (const std::int64_t columns : {16, 32, 48, 64}) {
      for (const std::int64_t rank : {1, 2, 5, 16, 33}) {
        const auto plain = random_elements<T>(rank * columns, generator);  // (R, columns)
        std::vector<T> b(packed_b_size(rank, columns, kPack), T(0));
        for (std::int64_t r = 0; r < rank; ++r) {
          for (std::int64_t c = 0; c < columns; ++c) {
            b[packed_b_index(r, c, rank, columns, kPack)] = plain[r * columns + c];
          }
        }
        const std::int64_t z_stride = round_up(rank, kRankBlock);
        for (std::int64_t count = 1; count <= 17; ++count) {
          const auto z = random_elements<T>(count * z_stride, generator);
          const auto before = random_elements<float>(count * kPanelColumns, generator);
          std::vector<float> sums = before;
          std::vector<std::int32_t> rows;  // written backwards
          for (std::int64_t i = 0; i < count; ++i) rows.push_back(static_cast<std::int32_t>(count - 1 - i));
          kernels->expand(b.data(), round_up(rank, kPack) / kPack, columns, z.data(), z_stride, rows.data(), count,
                          sums.data(), kPanelColumns);
          for (std::int64_t i = 0; i < count; ++i) {
            for (std::int64_t c = 0; c < columns; ++c) {
              const std::int64_t at = rows[i] * kPanelColumns + c;
              double sum = before[at];
              double size = std::abs(before[at]);
              for (std::int64_t r = 0; r < rank; ++r) {
                const double term = double(widen(plain[r * columns + c])) * widen(z[i * z_stride + r]);
                sum += term;
                size += std::abs(term);
              }
              const double bound = size * static_cast<double>(rank + 2) * 0x1p-23;
              ASSERT_NEAR(sums[at], sum, bound) << "row " << i << " of " << count << ", column " << c;
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(LoraKernelsOf, AddRoundsOnceToNearestEven) {
  using T = TypeParam;
  std::mt19937 generator(3);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    for (std::int64_t columns = 1; columns <= 64; ++columns) {
      const auto d = random_elements<float>(64, generator);
      auto y = random_elements<T>(64, generator);
      const auto before = y;
      kernels->add(d.data(), y.data(), columns);
      for (std::int64_t c = 0; c < 64; ++c) {
        T expected = before[c];
        if (c < columns) narrow(widen(before[c]) + d[c], expected);
        ASSERT_EQ(y[c], expected) << "column " << c << " of " << columns;
      }
    }
  }
}

// The promise that lets a sequence's result be the same alone and in a batch: bit for bit, whatever tile a row falls
// into.
TYPED_TEST(LoraKernelsOf, ARowsResultDoesNotDependOnItsNeighbours) {
  using T = TypeParam;
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::mt19937 generator(4);
  const std::int64_t d_in = 77;
  const std::int64_t rank = 16;
  const auto x = random_elements<T>(19 * d_in, generator);
  const auto a = random_elements<T>(packed_a_size(rank, d_in, kPack), generator);
  const auto b = random_elements<T>(packed_b_size(rank, 64, kPack), generator);
  std::vector<std::int32_t> rows;
  std::vector<float> weights(19, 0.7F);
  for (int i = 0; i < 19; ++i) rows.push_back(i);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    std::vector<T> z(19 * 16);
    std::vector<float> sums(19 * 64, 0);
    kernels->shrink(a.data(), d_in, x.data(), d_in, rows.data(), weights.data(), 19, z.data(), 16);
    kernels->expand(b.data(), rank / kPack, 64, z.data(), 16, nullptr, 19, sums.data(), 64);
    for (int i = 0; i < 19; ++i) {
      std::vector<T> z_alone(16);
      std::vector<float> sums_alone(64, 0);
      kernels->shrink(a.data(), d_in, x.data(), d_in, rows.data() + i, weights.data(), 1, z_alone.data(), 16);
      kernels->expand(b.data(), rank / kPack, 64, z_alone.data(), 16, nullptr, 1, sums_alone.data(), 64);
      ASSERT_EQ(z_alone, std::vector<T>(z.begin() + i * 16, z.begin() + (i + 1) * 16)) << "row " << i;
      ASSERT_EQ(sums_alone, std::vector<float>(sums.begin() + i * 64, sums.begin() + (i + 1) * 64)) << "row " << i;
    }
  }
}

}  // namespace
}  // namespace skein
