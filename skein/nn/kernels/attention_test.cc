#include "skein/nn/kernels/attention.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/nn/kernels/each_target.h"

namespace skein {
namespace {

struct Case {
  std::int64_t queries, keys, d_head;
  bool causal;
  std::int64_t window;
  bool masked;
};
constexpr Case kCases[] = {{1, 1, 1, true, 0, false},    {3, 3, 10, true, 0, false},   {17, 17, 16, true, 0, true},
                           {40, 40, 64, true, 0, false}, {40, 40, 80, true, 7, false}, {5, 29, 16, true, 0, false},
                           {5, 90, 6, true, 40, false},  {13, 7, 24, false, 0, false}, {9, 35, 18, false, 0, true}};

struct Inputs {
  std::vector<float> q, k, v, mask;  // q, k, v: rows d_head + 3 apart
};

Inputs inputs_of(const Case& c) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Inputs in{std::vector<float>(c.queries * (c.d_head + 3)), std::vector<float>(c.keys * (c.d_head + 3)),
            std::vector<float>(c.keys * (c.d_head + 3)), std::vector<float>(c.queries * c.keys)};
  for (auto* values : {&in.q, &in.k, &in.v, &in.mask}) {
    for (float& value : *values) value = bf16_to_f32(f32_to_bf16(normal(random)));
  }
  for (std::size_t i = 0; i < in.mask.size(); i += 5) in.mask[i] = -INFINITY;
  for (std::int64_t row = 0; row < c.queries; ++row) in.mask[row * c.keys] = 0;  // every query sees something
  return in;
}

// In pieces of 4 keys, as pages give them.
template <typename T>
void pack_in_pages(const AttentionShape& shape, const std::vector<T>& k, const std::vector<T>& v, float* packed) {
  for (std::int64_t key = 0; key < shape.keys; key += 4) {
    pack_keys_and_values(shape, key, std::min<std::int64_t>(4, shape.keys - key), k.data() + key * shape.k_stride,
                         v.data() + key * shape.v_stride, packed);
  }
}

struct Outputs {
  std::vector<float> out, log_sums;
};

// Rows [first, end) of the case as the kernel computes them.
Outputs attend(const Case& c, const Inputs& in, bool bf16, std::int64_t first, std::int64_t end) {
  const std::int64_t stride = c.d_head + 3;
  AttentionShape shape{bf16 ? Element::kBf16 : Element::kF32,
                       c.queries,
                       c.keys,
                       c.d_head,
                       stride,
                       stride,
                       stride,
                       c.d_head,
                       0.3F,
                       c.causal,
                       c.window,
                       c.masked ? in.mask.data() : nullptr,
                       c.keys};
  std::vector<float> packed(packed_size(shape));
  Outputs outputs{std::vector<float>(c.queries * c.d_head), std::vector<float>(c.queries)};
  if (!bf16) {
    pack_in_pages(shape, in.k, in.v, packed.data());
    attend_rows(shape, in.q.data(), packed.data(), first, end, outputs.out.data(), outputs.log_sums.data(), 1);
    return outputs;
  }
  const auto narrow = [](const std::vector<float>& values) {
    std::vector<std::uint16_t> bits;
    for (const float value : values) bits.push_back(f32_to_bf16(value));
    return bits;
  };
  const auto q = narrow(in.q), k = narrow(in.k), v = narrow(in.v);
  std::vector<std::uint16_t> bits(outputs.out.size());
  pack_in_pages(shape, k, v, packed.data());
  attend_rows(shape, q.data(), packed.data(), first, end, bits.data(), outputs.log_sums.data(), 1);
  for (std::size_t i = 0; i < bits.size(); ++i) outputs.out[i] = bf16_to_f32(bits[i]);
  return outputs;
}

TEST(Attention, EqualsTheFormulaInDoublePrecision) {
  on_each_target([] {
    for (const Case& c : kCases) {
      const Inputs in = inputs_of(c);
      const std::int64_t stride = c.d_head + 3;
      for (const bool bf16 : {false, true}) {
        const Outputs got = attend(c, in, bf16, 0, c.queries);
        for (std::int64_t row = 0; row < c.queries; ++row) {
          const std::int64_t position = c.keys - c.queries + row;
          std::vector<double> weights(c.keys, 0.0);
          double sum = 0;
          for (std::int64_t key = 0; key < c.keys; ++key) {
            if (c.causal && (key > position || (c.window > 0 && key <= position - c.window))) continue;
            double score = 0;
            for (std::int64_t i = 0; i < c.d_head; ++i) score += in.q[row * stride + i] * in.k[key * stride + i];
            weights[key] = std::exp(score * static_cast<double>(0.3F) + (c.masked ? in.mask[row * c.keys + key] : 0));
            sum += weights[key];
          }
          // Scores up to 10 are good to 1e-5 in f32.
          ASSERT_NEAR(got.log_sums[row], std::log(sum), 1e-5);
          for (std::int64_t i = 0; i < c.d_head; ++i) {
            double expected = 0, magnitude = 0;
            for (std::int64_t key = 0; key < c.keys; ++key) {
              expected += weights[key] / sum * in.v[key * stride + i];
              magnitude += weights[key] / sum * std::abs(in.v[key * stride + i]);
            }
            // bf16 rounds the weights and the result to 8 bits.
            ASSERT_NEAR(got.out[row * c.d_head + i], expected, bf16 ? 0x1p-8 * (magnitude + std::abs(expected)) : 2e-5)
                << c.queries << " queries, " << c.keys << " keys, row " << row << " bf16 " << bf16;
          }
        }
      }
    }
  });
}

TEST(Attention, GivesARowTheSameBitsInAnyCompany) {
  on_each_target([] {
    for (const Case& c : kCases) {
      const Inputs in = inputs_of(c);
      for (const bool bf16 : {false, true}) {
        const Outputs together = attend(c, in, bf16, 0, c.queries);
        for (std::int64_t row = 0; row < c.queries; ++row) {
          const Outputs alone = attend(c, in, bf16, row, row + 1);
          ASSERT_EQ(alone.log_sums[row], together.log_sums[row]);
          for (std::int64_t i = row * c.d_head; i < (row + 1) * c.d_head; ++i) ASSERT_EQ(alone.out[i], together.out[i]);
        }
      }
    }
  });
}

}  // namespace
}  // namespace skein
