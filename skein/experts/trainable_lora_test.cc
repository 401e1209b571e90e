#include "skein/experts/trainable_lora.h"

#include <random>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/experts/lora_group.h"
#include "skein/experts/random_experts.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed, c10::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kDouble).to(dtype);
}

// q, k, v of three widths; k has no branch in the tests of gradients.
LinearGroup make_group(c10::ScalarType dtype) {
  return make_linear_group({normal({6, 5}, 1, dtype), normal({4, 5}, 2, dtype), normal({3, 5}, 3, dtype)},
                           {normal({6}, 4, dtype), normal({4}, 5, dtype), normal({3}, 6, dtype)}, {0, 1, 2});
}
const std::vector<SlotName> kSlots{slot_named("m.q_proj", 5, 6), slot_named("m.k_proj", 5, 4),
                                   slot_named("m.v_proj", 5, 3)};
const std::vector<LoraBranch> kBranches{{2, 0.5}, {}, {3, 2.0}};

// A scalar of all outputs, with a different weight for each number; parts in `skipped` stay out of the loss.
at::Tensor loss_of(const std::vector<at::Tensor>& outputs, std::size_t skipped = 99) {
  at::Tensor loss = at::zeros({}, outputs[0].options());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (i != skipped)
      loss = loss + (outputs[i] * normal(outputs[i].sizes().vec(), 50 + i, outputs[i].scalar_type())).sum();
  }
  return loss;
}

// The same by plain operations, for autograd to differentiate.
std::vector<at::Tensor> plain_lora(const LinearGroup& group, const at::Tensor& x, const at::Tensor& a,
                                   const at::Tensor& b, const at::Tensor& gates = {}) {
  std::vector<at::Tensor> outputs;
  std::int64_t rank_begin = 0;
  std::int64_t b_begin = 0;
  std::int64_t branch = 0;
  for (std::size_t i = 0; i < group.parts.size(); ++i) {
    at::Tensor y = at::linear(x, group.parts[i].weight, group.parts[i].bias);
    const std::int64_t rank = kBranches[i].rank;
    if (rank > 0) {
      const std::int64_t d_out = group.parts[i].weight.size(0);
      at::Tensor delta = at::linear(at::linear(x, a.narrow(0, rank_begin, rank)),
                                    b.narrow(0, b_begin, rank * d_out).view({d_out, rank}));
      delta = gates.defined() ? delta * gates.select(1, branch).unsqueeze(1) : delta * kBranches[i].scale;
      y = y + delta;
      rank_begin += rank;
      b_begin += rank * d_out;
      ++branch;
    }
    outputs.push_back(y);
  }
  return outputs;
}

// d loss / d input by central differences in f64: errors of order step^2 and 1e-16 / step.
at::Tensor finite_differences(const at::Tensor& input, const std::function<at::Tensor()>& loss) {
  const at::NoGradGuard no_grad;
  const double step = 1e-5;
  const at::Tensor result = at::empty_like(input);
  double* const values = input.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < input.numel(); ++i) {
    const double before = values[i];
    values[i] = before + step;
    const double above = loss().item<double>();
    values[i] = before - step;
    const double below = loss().item<double>();
    values[i] = before;
    result.mutable_data_ptr<double>()[i] = (above - below) / (2 * step);
  }
  return result;
}

TEST(LoraGroup, EqualsPlainAutograd) {
  const LinearGroup group = make_group(at::kDouble);
  for (const std::size_t skipped : {std::size_t{99}, std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
    std::vector<at::Tensor> fast{normal({7, 5}, 10), normal({5, 5}, 11), normal({2 * 6 + 3 * 3}, 12)};
    std::vector<at::Tensor> plain;
    for (at::Tensor& tensor : fast) {
      plain.push_back(tensor.clone().requires_grad_(true));
      tensor.requires_grad_(true);
    }
    const auto y = lora_group(group, kBranches, fast[0], fast[1], fast[2]);
    const auto y_plain = plain_lora(group, plain[0], plain[1], plain[2]);
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_TRUE(at::allclose(y[i], y_plain[i], 1e-12, 1e-12)) << i;
    loss_of(y, skipped).backward();
    loss_of(y_plain, skipped).backward();
    for (std::size_t i = 0; i < fast.size(); ++i) {
      EXPECT_TRUE(at::allclose(fast[i].grad(), plain[i].grad(), 1e-12, 1e-12))
          << "input " << i << " without " << skipped;
    }
  }
}

TEST(LoraGroup, GradientsEqualFiniteDifferences) {
  const LinearGroup group = make_group(at::kDouble);
  std::vector<at::Tensor> inputs{normal({4, 5}, 20), normal({5, 5}, 21), normal({2 * 6 + 3 * 3}, 22)};
  for (at::Tensor& tensor : inputs) tensor.requires_grad_(true);
  const auto loss = [&] {
    return at::tanh(loss_of(lora_group(group, kBranches, inputs[0], inputs[1], inputs[2])) / 50);
  };
  loss().backward();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(at::allclose(inputs[i].grad(), finite_differences(inputs[i], loss), 1e-6, 1e-8)) << "input " << i;
  }
}

TEST(GatedLoraGroup, EqualsPlainAutograd) {
  const LinearGroup group = make_group(at::kDouble);
  const at::Tensor a = normal({5, 5}, 31);
  const at::Tensor b = normal({2 * 6 + 3 * 3}, 32);
  for (const std::size_t skipped : {std::size_t{99}, std::size_t{0}, std::size_t{2}}) {
    const at::Tensor x = normal({7, 5}, 30).requires_grad_(true);
    const at::Tensor v = normal({2, 5}, 33).requires_grad_(true);
    const at::Tensor x_plain = x.detach().clone().requires_grad_(true);
    const at::Tensor v_plain = v.detach().clone().requires_grad_(true);
    at::Tensor gates;
    const auto y = gated_lora_group(group, kBranches, x, a, b, v, &gates);
    const auto y_plain = plain_lora(group, x_plain, a, b, at::sigmoid(at::linear(x_plain, v_plain)));
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_TRUE(at::allclose(y[i], y_plain[i], 1e-12, 1e-12)) << i;
    EXPECT_TRUE(at::allclose(gates, at::sigmoid(at::linear(x, v)), 1e-12, 1e-12));
    loss_of(y, skipped).backward();
    loss_of(y_plain, skipped).backward();
    EXPECT_TRUE(at::allclose(x.grad(), x_plain.grad(), 1e-12, 1e-12)) << "without " << skipped;
    EXPECT_TRUE(at::allclose(v.grad(), v_plain.grad(), 1e-12, 1e-12)) << "without " << skipped;
  }
}

TEST(GatedLoraGroup, GradientsEqualFiniteDifferences) {
  const LinearGroup group = make_group(at::kDouble);
  const at::Tensor a = normal({5, 5}, 41);
  const at::Tensor b = normal({2 * 6 + 3 * 3}, 42);
  std::vector<at::Tensor> inputs{normal({4, 5}, 40), normal({2, 5}, 43)};
  for (at::Tensor& tensor : inputs) tensor.requires_grad_(true);
  const auto loss = [&] {
    return at::tanh(loss_of(gated_lora_group(group, kBranches, inputs[0], a, b, inputs[1], nullptr)) / 50);
  };
  loss().backward();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(at::allclose(inputs[i].grad(), finite_differences(inputs[i], loss), 1e-6, 1e-8)) << "input " << i;
  }
}

TEST(TrainableLora, StartsAsThePlainBaseWithAsOfTheGivenSpread) {
  const std::vector<SlotName> slots{slot_named("m.q_proj", 400, 30)};
  const TrainableLora lora(slots, LoraInit{.rank = 16, .seed = 1}, at::kCPU);
  EXPECT_NEAR(lora.parameters()[0].std().item<double>(), 0.01,
              0.01 * 4 / std::sqrt(2 * 16 * 400.0));  // 4 standard errors
  EXPECT_EQ(lora.parameters()[1].abs().max().item<double>(), 0);
  const TrainableLora same(slots, LoraInit{.rank = 16, .seed = 1}, at::kCPU);
  const TrainableLora other(slots, LoraInit{.rank = 16, .seed = 2}, at::kCPU);
  EXPECT_TRUE(at::equal(lora.parameters()[0], same.parameters()[0]));
  EXPECT_FALSE(at::equal(lora.parameters()[0], other.parameters()[0]));
  const TrainableLora kaiming(slots, LoraInit{.rank = 16, .a_std = 0}, at::kCPU);
  EXPECT_LE(kaiming.parameters()[0].abs().max().item<double>(), 0.05);  // 1 / sqrt(400)
  EXPECT_GT(kaiming.parameters()[0].abs().max().item<double>(), 0.049);
}

TEST(TrainableLora, TrainsTheKindsAskedForAndNoOthers) {
  const TrainableLora lora(kSlots, LoraInit{.rank = 2, .target_kinds = {"v_proj", "q_proj"}}, at::kCPU);
  EXPECT_THAT(lora.parameter_names(),
              ::testing::ElementsAre("m.q_proj.lora_A", "m.q_proj.lora_B", "m.v_proj.lora_A", "m.v_proj.lora_B"));
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({3, 5}, 60, at::kFloat);
  ForwardState state;
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& parameter : lora.parameters()) parameter.fill_(0.5);
  }
  const auto y = lora.forward(group, x, state);
  const auto base = apply_frozen(group, x);
  EXPECT_TRUE(at::equal(y[1], base[1]));
  EXPECT_FALSE(at::allclose(y[0], base[0]));
  loss_of(y).backward();
  for (const at::Tensor& parameter : lora.parameters()) EXPECT_GT(parameter.grad().abs().max().item<float>(), 0);
  try {
    const TrainableLora none(kSlots, LoraInit{.target_kinds = {"up_proj"}}, at::kCPU);
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(failure.what(), ::testing::HasSubstr("q_proj, k_proj, v_proj"));
  }
}

TEST(TrainableLora, BecomesAnAdapterThatComputesTheSame) {
  const TrainableLora lora(kSlots, LoraInit{.rank = 2, .alpha = 6, .seed = 3}, at::kCPU);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : lora.parameters()) parameter.normal_(0, 1, at::detail::createCPUGenerator(5));
  const LoraAdapter adapter = lora.to_adapter("base", false);
  EXPECT_THAT(adapter.config.target_modules, ::testing::ElementsAre("q_proj", "k_proj", "v_proj"));
  EXPECT_EQ(adapter.config.alpha, 6);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({3, 5}, 61, at::kFloat);
  ForwardState state;
  const auto y = lora.forward(group, x, state);
  const auto base = apply_frozen(group, x);
  for (std::size_t i = 0; i < 3; ++i) {
    const LoraTensors& module = adapter.modules[i];
    EXPECT_EQ(module.scale, 3);
    const at::Tensor a = tensor_of(module.a, {2, 5});
    const at::Tensor b = tensor_of(module.b, {kSlots[i].d_out, 2});
    EXPECT_TRUE(at::allclose(y[i], base[i] + 3 * at::linear(at::linear(x, a), b), 1e-5, 1e-4)) << i;
  }
}

// bf16 compute: parameters stay f32, gradients arrive in f32 and near those of f32.
TEST(TrainableLora, GradientsInBf16AreThoseOfF32UpToRounding) {
  std::vector<std::vector<at::Tensor>> grads;
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const TrainableLora lora(kSlots, LoraInit{.rank = 2, .a_std = 0.5}, at::kCPU);
    {
      const at::NoGradGuard no_grad;
      for (const at::Tensor& parameter : lora.parameters()) {
        parameter.add_(0.25).copy_(parameter.to(at::kBFloat16));  // exact in both types
      }
    }
    LinearGroup group = make_group(at::kBFloat16);
    if (dtype == at::kFloat) {
      group = make_linear_group(
          {group.parts[0].weight.to(dtype), group.parts[1].weight.to(dtype), group.parts[2].weight.to(dtype)},
          {{}, {}, {}}, {0, 1, 2});
    }
    ForwardState state;
    const at::Tensor x = normal({64, 5}, 62, at::kBFloat16).to(dtype);
    loss_of(lora.forward(group, x, state)).backward();
    grads.emplace_back();
    for (const at::Tensor& parameter : lora.parameters()) {
      EXPECT_EQ(parameter.grad().scalar_type(), at::kFloat);
      grads.back().push_back(parameter.grad());
    }
  }
  for (std::size_t i = 0; i < grads[0].size(); ++i) {
    const double size = grads[0][i].norm().item<double>();
    // Cotangents, h, z and the gradient itself: four roundings of 2^-9 each.
    EXPECT_LT((grads[0][i] - grads[1][i]).norm().item<double>(), 4 * 0x1p-9 * size) << "parameter " << i;
  }
}

TEST(GatedLora, StartsAtExactlyHalfTheExpert) {
  std::mt19937_64 generator(1);
  const LoraAdapter adapter = random_adapter(kSlots, {2, 0, 3}, generator);
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const GatedLora gated(adapter, kSlots, ComputeOptions{.dtype = dtype});
    const LinearGroup group = make_group(dtype);
    const at::Tensor x = normal({3, 5}, 63, dtype);
    ForwardState state;
    const auto record = std::make_shared<GateRecord>(3);
    state.memory = record;
    const auto y = gated.forward(group, x, state);
    ASSERT_EQ(record->gates[0].size(), 1U);
    EXPECT_TRUE(at::equal(record->gates[0][0], at::full({3}, 0.5F)));
    EXPECT_TRUE(at::equal(record->gates[2][0], at::full({3}, 0.5F)));
    EXPECT_TRUE(record->gates[1].empty());
    const auto base = apply_frozen(group, x);
    EXPECT_TRUE(at::equal(y[1], base[1]));
    const LoraTensors& module = adapter.modules[0];
    const at::Tensor delta =
        at::linear(at::linear(x.to(at::kFloat), tensor_of(module.a, {2, 5})), tensor_of(module.b, {6, 2})) *
        (0.5 * module.scale);
    const double tolerance = dtype == at::kBFloat16 ? 0.05 : 1e-5;  // A, B, z, y rounded to 8 bits, values of size 3
    EXPECT_TRUE(at::allclose(y[0].to(at::kFloat), base[0].to(at::kFloat) + delta, 0, tolerance));
  }
}

TEST(GatedLora, TrainsOneVectorForEachAdaptedModule) {
  std::mt19937_64 generator(2);
  const GatedLora gated(random_adapter(kSlots, {2, 0, 3}, generator), kSlots, ComputeOptions{});
  EXPECT_THAT(gated.parameter_names(), ::testing::ElementsAre("m.q_proj.gate", "m.v_proj.gate"));
  ForwardState state;
  loss_of(gated.forward(make_group(at::kFloat), normal({3, 5}, 64, at::kFloat), state)).backward();
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& v : gated.parameters()) v.sub_(v.grad());
  }
  const GateFile gate = gated.to_gate(100, "fingerprint");
  EXPECT_EQ(gate.kind, "phatgoose");
  EXPECT_EQ(gate.steps, 100);
  ASSERT_EQ(gate.modules.size(), 2U);
  EXPECT_EQ(gate.modules[1].slot_idx, 2);
  EXPECT_EQ(gate.modules[1].directions, floats_of(gated.parameters()[1].detach()));
  EXPECT_NE(gate.modules[1].directions[0], 0);
}

}  // namespace
}  // namespace skein
