#include "skein/nn/quantised_weight.h"

#include <cmath>
#include <cstring>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/io/gguf_writer.h"
#include "skein/nn/kernels/quantised_rows.h"
#include "skein/nn/linear.h"

namespace skein {
namespace {

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

// By the definition, number by number.
at::Tensor restored_slowly(const at::Tensor& weight, int bits) {
  const std::int64_t size = bits == 8 ? 32 : 64;
  const at::Tensor out = at::empty_like(weight);
  const auto in = weight.accessor<float, 2>();
  auto result = out.accessor<float, 2>();
  for (std::int64_t row = 0; row < weight.size(0); ++row) {
    for (std::int64_t column = 0; column < weight.size(1); ++column) {
      const std::int64_t first = column / size * size;
      float magnitude = 0;
      for (std::int64_t i = first; i < std::min(first + size, weight.size(1)); ++i) {
        magnitude = std::max(magnitude, std::abs(in[row][i]));
      }
      const float scale = f16_to_f32(f32_to_f16(magnitude / 127));
      float best = INFINITY;
      const int count = bits == 8 ? 255 : 16;
      for (int i = 0; i < count; ++i) {
        const float level = static_cast<float>(bits == 8 ? i - 127 : kLevels[i]) * scale;
        if (std::abs(level - in[row][column]) < std::abs(best - in[row][column])) best = level;
      }
      result[row][column] = best;
    }
  }
  return out;
}

TEST(QuantisedWeight, GivesTheNearestLevelOfEachBlock) {
  for (const int bits : {8, 4}) {
    at::Tensor weight = normal({5, 150}, 1);  // blocks of 64, 64 and 22, or of 32, ..., 32 and 22
    weight.select(0, 2).zero_();
    weight.narrow(1, 64, 64).mul_(100);
    const QuantisedWeight quantised(weight, {.bits = bits});
    const at::Tensor expected = restored_slowly(weight, bits), found = quantised.rows(0, 5, at::kFloat);
    EXPECT_TRUE(found.equal(expected)) << bits;  // halfway cases aside, of which this draw has none
    EXPECT_TRUE(quantised.rows(1, 3, at::kFloat).equal(found.narrow(0, 1, 3)));
    EXPECT_TRUE(quantised.rows(at::tensor({3, 1, 3}, at::kLong), at::kFloat)
                    .equal(found.index_select(0, at::tensor({3, 1, 3}, at::kLong))));
    EXPECT_TRUE(quantised.rows(0, 5, at::kBFloat16).equal(found.to(at::kBFloat16)));
  }
}

TEST(QuantisedWeight, KeepsTheBlocksOfQ8_0AsTheyAre) {
  const at::Tensor weight = normal({4, 96}, 3) * 0.02;
  std::vector<std::byte> blocks(4 * 3 * 34);
  ASSERT_TRUE(quantize_q8_0(weight.const_data_ptr<float>(), weight.numel(), blocks.data()));
  const at::Tensor stored = at::empty_like(weight);
  for (std::int64_t i = 0; i < weight.numel(); ++i) {
    const std::byte* block = blocks.data() + i / 32 * 34;
    std::uint16_t scale = 0;
    std::memcpy(&scale, block, 2);
    stored.mutable_data_ptr<float>()[i] =
        static_cast<float>(static_cast<std::int8_t>(block[2 + i % 32])) * f16_to_f32(scale);
  }
  EXPECT_TRUE(QuantisedWeight(stored, {.bits = 8}).rows(0, 4, at::kFloat).equal(stored));
}

TEST(QuantisedWeight, StaysFiniteWhereF16Ends) {
  for (const int bits : {8, 4}) {
    for (const float magnitude : {1e-30F, 1e-9F, 1e9F, 3e38F}) {
      const at::Tensor weight = normal({2, 64}, 4) * magnitude;
      const at::Tensor found = QuantisedWeight(weight, {.bits = bits}).rows(0, 2, at::kFloat);
      EXPECT_TRUE(at::isfinite(found).all().item<bool>()) << magnitude;
      EXPECT_LE(found.abs().max().item<float>(), weight.abs().max().item<float>() * 1.001F) << magnitude;
    }
  }
}

TEST(QuantisedWeight, TakesTheBitsItSays) {
  const at::Tensor weight = normal({64, 512}, 2);
  EXPECT_EQ(QuantisedWeight(weight, {.bits = 8}).num_bytes() * 8, 64 * 512 * 85 / 10);
  EXPECT_EQ(QuantisedWeight(weight, {.bits = 4}).num_bytes() * 8, 64 * 512 * 425 / 100);
  const at::Tensor memory = at::empty({QuantisedWeight::bytes_of(64, 512, 4)}, at::kByte);
  EXPECT_TRUE(QuantisedWeight(weight, {.bits = 4, .memory = memory})
                  .rows(0, 64, at::kFloat)
                  .equal(QuantisedWeight(weight, {.bits = 4}).rows(0, 64, at::kFloat)));
}

TEST(QuantisedWeight, MultipliesWithItsRestoredNumbers) {
  for (const int bits : {8, 4}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      // The second: more rows than a buffer of restored ones holds.
      for (const auto& [outputs, depth] : {std::pair{37, 70}, {150, 1000}}) {
        const QuantisedWeight quantised(normal({outputs, depth}, 1), {.bits = bits});
        const at::Tensor numbers = quantised.rows(0, outputs, dtype), bias = normal({outputs}, 2).to(dtype);
        for (const int rows : {0, 1, 2, 9, 40}) {
          const at::Tensor x = normal({rows, depth}, 3).to(dtype);
          EXPECT_TRUE(quantised.product(x, bias).equal(frozen_linear(x, numbers, bias)));
          EXPECT_TRUE(quantised.product(x, {}).equal(frozen_linear(x, numbers, {})));
        }
      }
    }
  }
}

TEST(QuantisedWeight, WithEightBitInputsIsOffByHalfTheirSteps) {
  for (const int bits : {8, 4}) {
    const QuantisedWeight quantised(normal({37, 150}, 1), {.bits = bits, .eight_bit_inputs = true});
    const at::Tensor numbers = quantised.rows(0, 37, at::kFloat);
    const at::Tensor x = normal({9, 150}, 2).to(at::kBFloat16), wide = x.to(at::kFloat);
    const at::Tensor exact = at::linear(wide, numbers);
    // Of each block of 32 half a step, max |x| / 254, times what it meets; bf16's rounding of the result.
    at::Tensor bound = exact.abs() * 0x1p-8 + 1e-5;
    for (int first = 0; first < 150; first += 32) {
      const int count = std::min(32, 150 - first);
      bound += wide.narrow(1, first, count).abs().amax(1, true) / 254 *
               numbers.narrow(1, first, count).abs().sum(1).unsqueeze(0);
    }
    const at::Tensor error = (quantised.product(x, {}).to(at::kFloat) - exact).abs();
    EXPECT_TRUE((error <= bound).all().item<bool>());
    EXPECT_GT(error.max().item<float>(), 0) << "nothing was rounded";
    EXPECT_TRUE(quantised.product(wide, {}).equal(frozen_linear(wide, numbers, {}))) << "f32 is exact";
  }
}

TEST(QuantisedWeight, AGroupComputesAndDifferentiatesWithItsRestoredNumbers) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const std::vector<at::Tensor> weights{normal({6, 70}, 1).to(dtype), normal({4, 70}, 2).to(dtype)};
    LinearGroup group = make_linear_group(weights, {normal({6}, 3).to(dtype), at::Tensor()}, {0, 1});
    quantise(group, dtype, {.bits = 4});
    LinearGroup dense = make_linear_group({group.quantised->rows(0, 6, dtype), group.quantised->rows(6, 4, dtype)},
                                          {normal({6}, 3).to(dtype), at::Tensor()}, {0, 1});
    at::Tensor gradients[2];
    std::vector<at::Tensor> outputs[2];
    for (int i = 0; i < 2; ++i) {
      const at::Tensor x = normal({3, 70}, 4).to(dtype).requires_grad_(true);
      outputs[i] = apply_frozen(i == 0 ? group : dense, x);
      (outputs[i][0].to(at::kFloat).sum() + outputs[i][1].to(at::kFloat).square().sum()).backward();
      gradients[i] = x.grad();
    }
    EXPECT_TRUE(outputs[0][0].equal(outputs[1][0]));
    EXPECT_TRUE(outputs[0][1].equal(outputs[1][1]));
    EXPECT_TRUE(gradients[0].equal(gradients[1]));
    const std::vector<at::Tensor> grads{normal({3, 6}, 5).to(dtype), normal({3, 4}, 6).to(dtype)};
    EXPECT_TRUE(frozen_gradient(group, grads).equal(frozen_gradient(dense, grads)));
    EXPECT_TRUE(frozen_gradient(group, {at::Tensor(), grads[1]}).equal(at::mm(grads[1], dense.parts[1].weight)));
    EXPECT_TRUE(group.weight.is_meta()) << "the numbers are still there";
  }
}

}  // namespace
}  // namespace skein
