#include "skein/experts/mixed_lora.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

// q, k, v of three widths; k has no experts.
struct Case {
  LinearGroup group = make_linear_group({normal({6, 5}, 1), normal({4, 5}, 2), normal({3, 5}, 3)},
                                        {at::Tensor(), at::Tensor(), at::Tensor()}, {0, 1, 2});
  at::Tensor x = normal({7, 5}, 4).requires_grad_(true);
  std::vector<MixedExperts> experts{part(0, 6, 10), part(2, 3, 20)};

  static MixedExperts part(std::size_t index, std::int64_t d_out, std::uint64_t seed) {
    return {index, normal({4, 2, 5}, seed).requires_grad_(true), normal({4, d_out, 2}, seed + 1).requires_grad_(true),
            normal({4, 5}, seed + 2).requires_grad_(true)};
  }
  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> all{x};
    for (const MixedExperts& part : experts) all.insert(all.end(), {part.a, part.b, part.router});
    return all;
  }
};

// Expert by expert, for autograd to differentiate.
std::vector<at::Tensor> plain(const Case& c, const RoutingRule& rule, double scale) {
  std::vector<at::Tensor> y;
  for (const FrozenLinear& part : c.group.parts) y.push_back(at::linear(c.x, part.weight));
  for (const MixedExperts& part : c.experts) {
    const at::Tensor p = routing_weights(at::linear(c.x, part.router), rule);  // (N, E)
    for (std::int64_t e = 0; e < p.size(1); ++e) {
      const at::Tensor delta = at::linear(at::linear(c.x, part.a[e]), part.b[e]);
      y[part.part] = y[part.part] + scale * p.select(1, e).unsqueeze(1) * delta;
    }
  }
  return y;
}

// A scalar of the outputs; part `skipped` stays out of it.
void differentiate(const std::vector<at::Tensor>& y, std::size_t skipped) {
  at::Tensor loss = at::zeros({});
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (i != skipped) loss = loss + (y[i] * normal(y[i].sizes().vec(), 30 + i)).sum();
  }
  loss.backward();
}

TEST(MixedLora, EqualsItsFormulaInValuesAndGradients) {
  for (const RoutingRule rule : {RoutingRule{}, RoutingRule{2, false}, RoutingRule{2, true}, RoutingRule{1, false}}) {
    for (const std::size_t skipped : {std::size_t{99}, std::size_t{2}}) {
      Case one, other;
      MixedRouting routing;
      const auto y = mixed_lora_group(one.group, one.experts, rule, 1.5, one.x, &routing);
      const auto expected = plain(other, rule, 1.5);
      for (std::size_t i = 0; i < y.size(); ++i) {
        // Sums of some ten products of size 10: f32 rounds them to 1e-5 at worst.
        EXPECT_LE((y[i] - expected[i]).abs().max().item<double>(), 1e-5 * (1 + expected[i].abs().max().item<double>()));
      }
      ASSERT_EQ(routing.weights.size(), 2u);
      EXPECT_LE((routing.weights[1] - routing_weights(at::linear(other.x, other.experts[1].router), rule))
                    .abs()
                    .max()
                    .item<double>(),
                1e-6);
      differentiate(y, skipped);
      differentiate(expected, skipped);
      for (std::size_t i = 0; i < one.leaves().size(); ++i) {
        const at::Tensor found = one.leaves()[i].grad(), wanted = other.leaves()[i].grad();
        if (!wanted.defined()) {
          EXPECT_TRUE(!found.defined() || found.abs().max().item<double>() == 0) << i;
          continue;
        }
        ASSERT_TRUE(found.defined()) << i;
        EXPECT_LE((found - wanted).abs().max().item<double>(), 2e-5 * (1 + wanted.abs().max().item<double>()))
            << "leaf " << i << " top " << rule.top_k << " skipped " << skipped;
      }
    }
  }
}

TEST(MixedLora, FrozenExpertsGetNoGradient) {
  Case c;
  for (MixedExperts& part : c.experts) {
    part.a = part.a.detach();
    part.b = part.b.detach();
  }
  differentiate(mixed_lora_group(c.group, c.experts, {}, 1, c.x, nullptr), 99);
  for (const MixedExperts& part : c.experts) {
    EXPECT_FALSE(part.a.grad().defined());
    EXPECT_TRUE(part.router.grad().defined());
  }
}

}  // namespace
}  // namespace skein
