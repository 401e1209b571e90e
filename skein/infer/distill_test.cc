#include "skein/infer/distill.h"

#include <random>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/experts/combine.h"
#include "skein/experts/random_experts.h"
#include "skein/infer/lorahub.h"
#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

// A tiny base with three random experts behind a router.
struct Pool {
  LoadedModel model;
  std::vector<LoraAdapter> adapters;
  std::vector<const LoraAdapter*> pointers;
  std::vector<GateFile> gates;

  Pool(Family family, const RouterOptions& router) : model(testing::tiny_model(family)) {
    const auto& slots = model.backbone->slots();
    std::mt19937_64 generator(2);
    for (int e = 0; e < 3; ++e) {
      adapters.push_back(random_adapter(slots, std::vector<std::int64_t>(slots.size(), 2 + e), generator));
      gates.push_back(random_gate(slots, generator));
    }
    for (const LoraAdapter& adapter : adapters) pointers.push_back(&adapter);
    model.bank =
        std::make_shared<ExpertBank>(adapters, std::vector<std::string>{"a", "b", "c"}, slots, ComputeOptions{});
    model.filler = std::make_shared<RoutedSlots>(model.bank, make_router(router, *model.bank, gates, ComputeOptions{}));
  }
  std::vector<EncodedExample> examples() const {
    std::vector<EncodedExample> encoded;
    for (const char* input : {"one two", "three", "four five six"}) {
      encoded.push_back(encode_example({.input = input, .target = "xyz"}, *model.tokenizer, model.base.config, {}));
    }
    return encoded;
  }
  RoutedSlots alone(const LoraAdapter& adapter) const {
    auto bank = std::make_shared<const ExpertBank>(std::vector<LoraAdapter>{adapter}, std::vector<std::string>{"one"},
                                                   model.backbone->slots(), ComputeOptions{});
    auto router = make_router({.kind = "single", .expert = "one"}, *bank, {}, ComputeOptions{});
    return RoutedSlots(std::move(bank), std::move(router));
  }
};

std::vector<std::vector<double>> rows_of(const at::Tensor& weights) {
  std::vector<std::vector<double>> rows;
  for (std::int64_t s = 0; s < weights.size(0); ++s) {
    rows.emplace_back(weights.const_data_ptr<double>() + s * 3, weights.const_data_ptr<double>() + s * 3 + 3);
  }
  return rows;
}

TEST(Distill, APoolThatMixesAlwaysTheSameIsItsOwnAdapter) {
  for (const Family family : {Family::kLlama, Family::kT5}) {
    const Pool pool(family, default_router("merged"));
    const auto examples = pool.examples();
    const at::Tensor weights = mean_routing_weights(pool.model, examples, 8);
    EXPECT_TRUE(at::allclose(weights, at::full_like(weights, 1.0 / 3), 1e-6));
    const RoutedSlots distilled = pool.alone(concatenated(pool.pointers, rows_of(weights)));
    const OutputDistance same = output_distance(*pool.model.backbone, pool.model.filler.get(), &distilled, examples);
    EXPECT_NEAR(same.divergence, 0, 1e-6);
    EXPECT_NEAR(same.loss, same.reference_loss, 1e-4);
    EXPECT_EQ(same.num_tokens, 12);  // three letters and the end, three times
    const OutputDistance base = output_distance(*pool.model.backbone, pool.model.filler.get(), nullptr, examples);
    EXPECT_GT(base.divergence, 100 * same.divergence + 1e-4);
  }
}

TEST(Distill, MeanWeightsAreThoseOfTheTokensRead) {
  const Pool pool(Family::kLlama, {.top_k = 2});
  const auto examples = pool.examples();
  const at::Tensor weights = mean_routing_weights(pool.model, examples, 1);
  at::Tensor sums = at::zeros({3}, at::kDouble);
  double rows = 0;
  for (const EncodedExample& example : examples) {
    const auto record = std::make_shared<RoutingRecord>(static_cast<int>(pool.model.backbone->slots().size()), 3);
    ForwardState state{pool.model.filler.get(), record};
    std::vector<TokenId> stream = example.input;
    stream.insert(stream.end(), example.target.begin(), example.target.end() - 1);
    const at::NoGradGuard no_grad;
    pool.model.backbone->forward(pack({{.tokens = stream}}, at::kCPU), nullptr, state);
    const Mixture& first = record->mixtures[0].at(0);
    sums.scatter_add_(0, first.ids.to(at::kLong).flatten(), first.weights.to(at::kDouble).flatten());
    rows += static_cast<double>(stream.size());
  }
  EXPECT_TRUE(at::allclose(weights[0], sums / rows, 1e-5, 1e-6));
  // Larger batches: the same up to the order of sums.
  EXPECT_TRUE(at::allclose(mean_routing_weights(pool.model, examples, 1000), weights, 1e-4, 1e-5));
}

TEST(LoraHub, FindsWeightsThatLowerTheLoss) {
  const Pool pool(Family::kLlama, default_router("merged"));
  const LoraHub found = fit_lorahub(pool.model, pool.adapters, pool.examples(), {.generations = 6, .penalty = 0});
  EXPECT_LT(found.loss, found.base_loss);
  ASSERT_EQ(found.weights.size(), 3u);
  const RoutedSlots slots = pool.alone(weighted_factors(pool.pointers, found.weights));
  EXPECT_NEAR(output_distance(*pool.model.backbone, nullptr, &slots, pool.examples()).loss, found.loss, 1e-4);
}

}  // namespace
}  // namespace skein
