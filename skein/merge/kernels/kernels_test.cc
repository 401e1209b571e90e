// Kernels against scalar twins written here, on every instruction set of the machine.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "hwy/targets.h"
#include "skein/base/half.h"
#include "skein/merge/kernels/random_mask.h"
#include "skein/merge/kernels/select.h"
#include "skein/merge/kernels/sums.h"
#include "skein/merge/kernels/tiles.h"

namespace skein::merge {
namespace {

template <class Body>
void on_every_target(const Body& body) {
  const std::int64_t all = hwy::SupportedTargets();
  for (std::int64_t rest = all; rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(rest & -rest));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(Tiles, LoadAndStoreEveryHalf) {
  on_every_target([] {
    const TileKernels kernels = tile_kernels();
    alignas(64) float tile[kTile];
    for (std::uint32_t first = 0; first < 65536; first += 999) {  // odd lengths and odd addresses
      std::vector<std::byte> bytes(1 + 2 * 999);
      const std::int64_t n = std::min<std::int64_t>(999, 65536 - first);
      for (std::int64_t i = 0; i < n; ++i) {
        const auto half = static_cast<std::uint16_t>(first + i);
        std::memcpy(bytes.data() + 1 + 2 * i, &half, 2);
      }
      for (const DType type : {DType::kBF16, DType::kF16}) {
        kernels.load({bytes.data() + 1, type}, 0, n, tile);
        std::vector<std::byte> back(1 + 2 * 999);
        kernels.store(tile, n, {.data = back.data() + 1, .dtype = type}, 0);
        for (std::int64_t i = 0; i < n; ++i) {
          const auto half = static_cast<std::uint16_t>(first + i);
          const float want = type == DType::kBF16 ? bf16_to_f32(half) : f16_to_f32(half);
          ASSERT_EQ(std::bit_cast<std::uint32_t>(tile[i]), std::bit_cast<std::uint32_t>(want)) << half;
          std::uint16_t got = 0;
          std::memcpy(&got, back.data() + 1 + 2 * i, 2);
          ASSERT_EQ(got, type == DType::kBF16 ? f32_to_bf16(want) : f32_to_f16(want)) << half;
        }
      }
    }
  });
}

std::vector<float> hard_floats(std::int64_t n) {
  std::mt19937 generator(5);
  std::vector<float> values;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t bits = generator();
    values.push_back(std::bit_cast<float>(i % 3 == 0 ? bits & 0x80ffffffU : bits));  // subnormals, NaN, infinities too
  }
  values[0] = 0;
  values[1] = -std::numeric_limits<float>::infinity();
  values[2] = std::numeric_limits<float>::quiet_NaN();
  return values;
}

TEST(Tiles, RoundAsTheScalarTwin) {
  on_every_target([] {
    const auto values = hard_floats(1000);
    std::vector<std::uint16_t> out(1000);
    for (const DType type : {DType::kBF16, DType::kF16}) {
      tile_kernels().store(values.data(), 1000, {.data = reinterpret_cast<std::byte*>(out.data()), .dtype = type}, 0);
      for (std::size_t i = 0; i < out.size(); ++i) {
        EXPECT_EQ(out[i], type == DType::kBF16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i])) << values[i];
      }
    }
  });
}

TEST(Selection, KeysAreThoseOfTheScalarTwinAndOrderAsMagnitudes) {
  on_every_target([] {
    auto values = hard_floats(1008);
    for (const DType type : {DType::kBF16, DType::kF16, DType::kF32}) {
      std::vector<std::uint32_t> keys(1008);
      const KeyRange range = select_kernels().slots(values.data(), 1008, type, keys.data());
      std::uint32_t lowest = kKeys, highest = 0;
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU;
        EXPECT_EQ(keys[i] % kCounterCopies, i % kCounterCopies);
        keys[i] /= kCounterCopies;
        EXPECT_EQ(keys[i], magnitude_key(type, bits));
        EXPECT_GE(bits, first_bits_of_key(type, keys[i]));
        EXPECT_LT(bits, first_bits_of_key(type, keys[i] + 1U));
        highest = std::max<std::uint32_t>(highest, keys[i]);
        if (keys[i] != 0) lowest = std::min<std::uint32_t>(lowest, keys[i]);
      }
      EXPECT_EQ(range.lowest, lowest);
      EXPECT_EQ(range.highest, highest);
    }
  });
}

TEST(Selection, CountsAndKeepsARangeOfMagnitudes) {
  on_every_target([] {
    for (const std::int64_t n : {1, 15, 16, 17, 1000}) {
      std::vector<float> values = hard_floats(std::max<std::int64_t>(n, 3));
      values.resize(static_cast<std::size_t>(n));
      values.resize(static_cast<std::size_t>(padded(n)));
      const std::uint32_t lo = 0, hi = 0x3f800000U, from = 0x00000000U, to = 0x20000000U;
      const auto bits = [&](std::int64_t i) {
        return std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(i)]) & 0x7fffffffU;
      };
      std::int64_t counted = 0;
      for (std::int64_t i = 0; i < n; ++i) counted += bits(i) >= from && bits(i) < to ? 1 : 0;
      EXPECT_EQ(select_kernels().count_between(values.data(), n, from, to), counted);
      std::vector<float> kept = values, both = values;
      select_kernels().keep_between(kept.data(), n, lo, hi);
      EXPECT_EQ(select_kernels().keep_and_count(both.data(), n, lo, hi, from, to), counted);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::uint32_t want =
            bits(i) >= lo && bits(i) < hi ? std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(i)]) : 0;
        EXPECT_EQ(std::bit_cast<std::uint32_t>(kept[static_cast<std::size_t>(i)]), want);
        EXPECT_EQ(std::bit_cast<std::uint32_t>(both[static_cast<std::size_t>(i)]), want);
      }
    }
  });
}

TEST(Random, PhiloxGivesItsPublishedAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, MasksAndNumbersAreThoseOfTheScalarTwin) {
  on_every_target([] {
    const StreamKey key = stream_key(42, "model.layers.0.weight");
    // Far into a tensor, so that a counter's upper word is used too.
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1} << 36}) {
      for (const double p : {0.0, 0.25, 0.3, 1e-5, 1 - 1e-5, 1.0}) {
        std::uint8_t bits[kTile / 8];
        random_kernels().mask(key, 3, first, 1000, mask_threshold(p), bits);
        std::vector<float> kept(1008, 2.0F);
        random_kernels().keep_masked(bits, 1000, 1.5F, kept.data());
        for (std::int64_t i = 0; i < 1000; ++i) {
          const bool want = random_number(key, 3, first + i) < mask_threshold(p);
          ASSERT_EQ((bits[i / 8] >> (i % 8) & 1) != 0, want) << i;
          ASSERT_EQ(kept[static_cast<std::size_t>(i)], want ? 3.0F : 0.0F) << i;
        }
      }
      std::vector<std::uint32_t> numbers(300);
      random_kernels().numbers(key, 3, first + 77, 300, numbers.data());
      for (std::int64_t i = 0; i < 300; ++i) {
        ASSERT_EQ(numbers[static_cast<std::size_t>(i)], random_number(key, 3, first + 77 + i));
      }
    }
  });
}

// With a threshold whose upper half equals that of an element, the lower half must decide.
TEST(Random, TheLowerHalfDecidesWhereUpperHalvesAreEqual) {
  on_every_target([] {
    const StreamKey key = stream_key(1, "w");
    for (std::int64_t e = 0; e < 256; ++e) {
      const std::uint64_t number = random_number(key, 0, e);
      for (const std::uint64_t threshold : {number, number + 1}) {
        std::uint8_t bits[32];
        random_kernels().mask(key, 0, 0, 256, threshold, bits);
        ASSERT_EQ((bits[e / 8] >> (e % 8) & 1) != 0, number < threshold) << e;
      }
    }
  });
}

TEST(Sums, AreThoseOfF64) {
  on_every_target([] {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (const std::int64_t n : {1, 16, 63, 64, 65, 1000}) {
      std::vector<float> a(static_cast<std::size_t>(padded(n))), b = a;
      double absolute = 0, dot = 0, size = 0;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        a[i] = normal(generator);
        b[i] = normal(generator);
        absolute += std::abs(a[i]);
        dot += static_cast<double>(a[i]) * b[i];
        size += std::abs(static_cast<double>(a[i]) * b[i]);
      }
      EXPECT_NEAR(sum_kernels().absolute(a.data(), n), absolute, 0x1p-23 * absolute);
      EXPECT_NEAR(sum_kernels().dot(a.data(), b.data(), n), dot, 1e-13 * size);
    }
  });
}

}  // namespace
}  // namespace skein::merge
