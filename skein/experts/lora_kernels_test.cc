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
          b_places.insert(packed_panels_index(r, i, rank, width, kPack, kExpandColumns));
        }
      }
      EXPECT_EQ(static_cast<std::int64_t>(a_places.size()), rank * width);
      EXPECT_EQ(static_cast<std::int64_t>(b_places.size()), rank * width);
      EXPECT_LT(*a_places.rbegin(), packed_a_size(rank, width, kPack));
      EXPECT_LT(*b_places.rbegin(), packed_panels_size(rank, width, kPack));
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

// A B of `columns` columns in one panel.
template <typename T>
std::vector<T> packed_panel(const std::vector<T>& plain, std::int64_t depth, std::int64_t columns, std::int64_t panel) {
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::vector<T> packed(packed_panels_size(depth, columns, kPack), T(0));
  for (std::int64_t i = 0; i < depth; ++i) {
    for (std::int64_t c = 0; c < columns; ++c) {
      packed[packed_panels_index(i, c, depth, columns, kPack, panel)] = plain[i * columns + c];
    }
  }
  return packed;
}

TYPED_TEST(LoraKernelsOf, ExpandAddsTheSumOverThePiecesRoundedOnce) {
  using T = TypeParam;
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::mt19937 generator(2);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    for (std::int64_t width = 1; width <= 32; ++width) {
      // Two experts of other ranks in one array, as in a bank; rows take none, one or both.
      const std::vector<std::int64_t> ranks{5, 18};
      std::vector<std::vector<T>> plain;
      std::vector<T> b;
      std::vector<std::int64_t> begin_of;
      for (const std::int64_t rank : ranks) {
        plain.push_back(random_elements<T>(rank * width, generator));
        begin_of.push_back(static_cast<std::int64_t>(b.size()));
        const auto packed = packed_panel<T>(plain.back(), rank, width, kExpandColumns);
        b.insert(b.end(), packed.begin(), packed.end());
      }
      const std::vector<std::vector<int>> experts_of{{0}, {}, {0, 1}, {1}, {1, 0}};
      const auto z = random_elements<T>(10 * 32, generator);
      std::vector<RankPiece> pieces;
      std::vector<std::int64_t> begin{0};
      for (const auto& experts : experts_of) {
        for (const int e : experts) {
          pieces.push_back({z.data() + pieces.size() * 32, begin_of[e], round_up(ranks[e], kPack) / kPack, 0, 64});
        }
        begin.push_back(static_cast<std::int64_t>(pieces.size()));
      }
      auto z_used = z;  // the odd rank's missing half pair must be zero, as shrink leaves it
      for (std::size_t i = 0; i < pieces.size(); ++i) z_used[i * 32 + (pieces[i].b_begin == 0 ? 5 : 18)] = T(0);
      for (std::size_t i = 0; i < pieces.size(); ++i) pieces[i].z = z_used.data() + i * 32;
      const auto before = random_elements<T>(5 * 40, generator);
      auto y = before;
      kernels->expand(b.data(), pieces.data(), begin.data(), 5, y.data(), 40, width);
      for (std::int64_t n = 0; n < 5; ++n) {
        for (std::int64_t c = 0; c < 40; ++c) {
          double sum = widen(before[n * 40 + c]);
          double size = std::abs(sum);
          for (std::int64_t i = begin[n]; i < begin[n + 1] && c < width; ++i) {
            const int e = experts_of[n][i - begin[n]];
            for (std::int64_t r = 0; r < ranks[e]; ++r) {
              const double term = double(widen(plain[e][r * width + c])) * widen(z_used[i * 32 + r]);
              sum += term;
              size += std::abs(term);
            }
          }
          if (c >= width || begin[n] == begin[n + 1]) {
            ASSERT_EQ(y[n * 40 + c], before[n * 40 + c]) << "row " << n << ", column " << c << " of " << width;
            continue;
          }
          // 23 sums and products of f32; in bf16 half a unit for the rounding of y.
          const double bound = size * 30 * 0x1p-24 + (sizeof(T) == 2 ? std::abs(sum) * 0x1p-8 : 0);
          ASSERT_NEAR(widen(y[n * 40 + c]), sum, bound) << "row " << n << ", column " << c << " of " << width;
        }
      }
    }
  }
}

TYPED_TEST(LoraKernelsOf, ProjectEqualsPlainLoops) {
  using T = TypeParam;
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::mt19937 generator(3);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    for (const std::int64_t columns : {16, 32, 48, 64}) {
      const std::int64_t d = 22;
      const auto plain = random_elements<T>(d * columns, generator);
      const auto g = packed_panel<T>(plain, d, columns, kProjectColumns);
      for (std::int64_t num_rows = 1; num_rows <= 17; ++num_rows) {
        const auto x = random_elements<T>(num_rows * 30, generator);
        std::vector<float> scores(num_rows * 70, -1);
        kernels->project(g.data(), d / kPack, columns, x.data(), 30, num_rows, scores.data(), 70);
        for (std::int64_t n = 0; n < num_rows; ++n) {
          for (std::int64_t c = 0; c < 70; ++c) {
            double sum = c < columns ? 0 : -1;
            double size = 0;
            for (std::int64_t i = 0; i < d && c < columns; ++i) {
              const double term = double(widen(plain[i * columns + c])) * widen(x[n * 30 + i]);
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(scores[n * 70 + c], sum, size * (d + 2) * 0x1p-24) << "row " << n << ", column " << c;
          }
        }
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
  const std::int64_t d_in = 78;
  const auto x = random_elements<T>(19 * d_in, generator);
  const auto a = random_elements<T>(packed_a_size(16, d_in, kPack), generator);
  const auto g = random_elements<T>(packed_panels_size(d_in, 64, kPack), generator);
  std::vector<std::int32_t> rows;
  std::vector<float> weights(19, 0.7F);
  for (int i = 0; i < 19; ++i) rows.push_back(i);
  for (const LoraKernels<T>* kernels : all_kernels<T>()) {
    std::vector<T> z(19 * 16);
    std::vector<float> scores(19 * 64);
    kernels->shrink(a.data(), d_in, x.data(), d_in, rows.data(), weights.data(), 19, z.data(), 16);
    kernels->project(g.data(), d_in / kPack, 64, x.data(), d_in, 19, scores.data(), 64);
    for (int i = 0; i < 19; ++i) {
      std::vector<T> z_alone(16);
      std::vector<float> scores_alone(64);
      kernels->shrink(a.data(), d_in, x.data(), d_in, rows.data() + i, weights.data(), 1, z_alone.data(), 16);
      kernels->project(g.data(), d_in / kPack, 64, x.data() + i * d_in, d_in, 1, scores_alone.data(), 64);
      ASSERT_EQ(z_alone, std::vector<T>(z.begin() + i * 16, z.begin() + (i + 1) * 16)) << "row " << i;
      ASSERT_EQ(scores_alone, std::vector<float>(scores.begin() + i * 64, scores.begin() + (i + 1) * 64)) << i;
    }
  }
}

}  // namespace
}  // namespace skein
