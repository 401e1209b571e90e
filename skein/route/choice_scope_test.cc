// Whose input decides, for which modules, and what is mixed: through RoutedSlots, on rows of several sequences.
#include "skein/route/choice_scope.h"

#include <limits>
#include <random>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"
#include "skein/nn/packed_batch.h"
#include "skein/route/routed_slot.h"

namespace skein {
namespace {

using Scope = RouterUse::Scope;
using Sharing = RouterUse::Sharing;
using Mixing = RouterUse::Mixing;

constexpr std::int64_t kIn = 24;

// Two layers of q, v and o.
std::vector<SlotName> make_slots() {
  std::vector<SlotName> slots;
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* kind : {"q_proj", "v_proj", "o_proj"}) {
      slots.push_back(slot_named("model." + std::to_string(layer) + "." + kind, kIn, kIn));
      slots.back().layer = layer;
    }
  }
  return slots;
}
const std::vector<SlotName> kSlots = make_slots();

at::Tensor rows(std::int64_t count, std::uint64_t seed) {
  return at::randn({count, kIn}, at::detail::createCPUGenerator(seed), at::kFloat);
}

struct Pool {
  std::shared_ptr<const ExpertBank> bank;
  std::vector<GateFile> gates;
  explicit Pool(int num_experts) {
    std::mt19937_64 generator(3);
    std::vector<LoraAdapter> adapters;
    std::vector<std::string> names;
    for (int e = 0; e < num_experts; ++e) {
      adapters.push_back(random_adapter(kSlots, std::vector<std::int64_t>(kSlots.size(), 4), generator));
      gates.push_back(random_gate(kSlots, generator));
      names.push_back("expert_" + std::to_string(e));
    }
    bank = std::make_shared<const ExpertBank>(adapters, names, kSlots, ComputeOptions{});
  }
  std::shared_ptr<const Router> router(const RouterOptions& options) const {
    return make_router(options, *bank, gates, ComputeOptions{});
  }
};

ForwardState state_of(const std::vector<Segment>& segments) {
  ForwardState state;
  state.rows = std::make_shared<const SequenceRows>(SequenceRows{segments});
  return state;
}

bool same(const Mixture& left, const Mixture& right) {
  return at::equal(left.ids, right.ids) && at::equal(left.weights, right.weights);
}

TEST(ChoiceScope, ASequenceIsRoutedByTheMeanOfItsPromptAndItsAnswersFollow) {
  const Pool pool(5);
  const auto router = pool.router({.use = {.scope = Scope::kSequence}});
  const at::Tensor x = rows(12, 1);
  // 5 rows of prompt with answers of 2 and 1; then 4 rows.
  ForwardState state = state_of({{.begin = 0, .length = 8, .branches = {2, 1}}, {.begin = 8, .length = 4}});
  const Mixture got = choose_mixtures(*router, *pool.bank, {0}, x, state)[0];
  const Mixture first = router->route(0, x.narrow(0, 0, 5).mean(0, true));
  const Mixture second = router->route(0, x.narrow(0, 8, 4).mean(0, true));
  for (std::int64_t n = 0; n < 12; ++n) {
    const Mixture& want = n < 8 ? first : second;
    EXPECT_TRUE(at::equal(got.ids[n], want.ids[0])) << n;
    EXPECT_TRUE(at::equal(got.weights[n], want.weights[0])) << n;
  }
}

TEST(ChoiceScope, WhatIsGeneratedKeepsThePromptsChoice) {
  const Pool pool(5);
  const auto router = pool.router({.use = {.scope = Scope::kSequence}});
  BackboneConfig config;
  config.num_layers = config.num_kv_heads = config.d_head = 1;
  KvSequence cache(config, at::TensorOptions(), 8), other(config, at::TensorOptions(), 8);
  ForwardState state = state_of({{.begin = 0, .length = 5, .cache = &cache}});
  const Mixture prompt = choose_mixtures(*router, *pool.bank, {0, 1}, rows(5, 2), state)[1];
  // The next token of it, beside a sequence that begins.
  state.rows = std::make_shared<const SequenceRows>(
      SequenceRows{{{.begin = 0, .length = 3, .cache = &other}, {.begin = 3, .length = 1, .cache = &cache}}});
  const at::Tensor x = rows(4, 3);
  const Mixture next = choose_mixtures(*router, *pool.bank, {0, 1}, x, state)[1];
  EXPECT_TRUE(at::equal(next.ids[3], prompt.ids[0]));
  EXPECT_TRUE(at::equal(next.weights[3], prompt.weights[0]));
  EXPECT_TRUE(at::equal(next.ids[0], router->route(1, x.narrow(0, 0, 3).mean(0, true)).ids[0]));
}

TEST(ChoiceScope, AnInputALayerOrTheModelTakeOneChoice) {
  const Pool pool(6);
  const at::Tensor x = rows(7, 4), y = rows(7, 5);
  const auto choose = [&](Sharing sharing) {
    const auto router = pool.router({.use = {.sharing = sharing}});
    ForwardState state = state_of({{.begin = 0, .length = 7}});
    std::vector<Mixture> all;
    for (const auto& [slots, input] :
         std::vector<std::pair<std::vector<int>, at::Tensor>>{{{0, 1}, x}, {{2}, y}, {{3, 4}, y}, {{5}, x}}) {
      for (const Mixture& mixture : choose_mixtures(*router, *pool.bank, slots, input, state)) all.push_back(mixture);
    }
    return all;
  };
  const auto module = choose(Sharing::kModule), input = choose(Sharing::kInput), layer = choose(Sharing::kLayer),
             model = choose(Sharing::kModel);
  EXPECT_FALSE(same(module[0], module[1]));
  EXPECT_TRUE(same(input[0], module[0]) && same(input[1], module[0]));
  EXPECT_TRUE(same(input[2], module[2]));
  EXPECT_TRUE(same(layer[0], module[0]) && same(layer[1], module[0]) && same(layer[2], module[0]));
  EXPECT_TRUE(same(layer[3], module[3]) && same(layer[5], module[3]));
  for (const Mixture& mixture : model) EXPECT_TRUE(same(mixture, module[0]));
}

TEST(ChoiceScope, AnotherPassChoosesAnew) {
  const Pool pool(6);
  const auto router = pool.router({.use = {.sharing = Sharing::kModel}});
  ForwardState state = state_of({{.begin = 0, .length = 7}});
  choose_mixtures(*router, *pool.bank, {0}, rows(7, 4), state);
  const at::Tensor x = rows(9, 6);
  state.rows = std::make_shared<const SequenceRows>(SequenceRows{{{.begin = 0, .length = 9}}});
  EXPECT_TRUE(same(choose_mixtures(*router, *pool.bank, {1}, x, state)[0], router->route(1, x)));
}

TEST(ChoiceScope, AHintReachesTheRowsOfItsSequenceAndNoOthers) {
  const Pool pool(4);
  const auto router = pool.router({.top_k = 1});
  const float nothing = -std::numeric_limits<float>::infinity();
  const auto hint = std::make_shared<RoutingHint>(std::vector<float>{nothing, nothing, 0, nothing});
  const at::Tensor x = rows(6, 7);
  ForwardState state = state_of({{.begin = 0, .length = 4}, {.begin = 4, .length = 2, .hint = hint}});
  const Mixture got = choose_mixtures(*router, *pool.bank, {0}, x, state)[0];
  const Mixture free = router->route(0, x);
  EXPECT_TRUE(at::equal(got.ids.narrow(0, 0, 4), free.ids.narrow(0, 0, 4)));
  EXPECT_TRUE(got.ids.narrow(0, 4, 2).eq(2).all().item<bool>());
}

// y_n = (sum of w B)(sum of w A) x_n, row by row in f64.
TEST(MixedFactors, AreMixedBeforeTheyAreMultiplied) {
  const Pool pool(5);
  const at::Tensor x = rows(6, 8);
  RouterOptions options = default_router("smear");
  const auto router = pool.router(options);
  ForwardState state = state_of({{.begin = 0, .length = 4}, {.begin = 4, .length = 2}});
  const Mixture mixture = choose_mixtures(*router, *pool.bank, {0}, x, state)[0];
  EXPECT_EQ(mixture.ids.size(1), 5);  // soft: every expert
  EXPECT_TRUE(at::equal(mixture.weights[0], mixture.weights[3]));

  const LinearGroup group = make_linear_group({rows(kIn, 9)}, {{}}, {0});
  const RoutedSlots slots(pool.bank, router);
  ForwardState again = state_of({{.begin = 0, .length = 4}, {.begin = 4, .length = 2}});
  const at::Tensor y = slots.forward(group, x, again)[0];
  for (std::int64_t n = 0; n < 6; ++n) {
    at::Tensor a = at::zeros({4, kIn}, at::kDouble), b = at::zeros({kIn, 4}, at::kDouble);
    for (int i = 0; i < 5; ++i) {
      const int e = mixture.ids[n][i].item<int>();
      a += mixture.weights[n][i].item<double>() * pool.bank->slot(0).expert_a(e).to(at::kDouble);
      b += mixture.weights[n][i].item<double>() * pool.bank->slot(0).expert_b(e).to(at::kDouble);
    }
    const at::Tensor row = x[n].to(at::kDouble);
    const at::Tensor want = group.parts[0].weight.to(at::kDouble).mv(row) + b.mv(a.mv(row));
    EXPECT_LT((y[n].to(at::kDouble) - want).abs().max().item<double>(), 2e-5);
  }
}

}  // namespace
}  // namespace skein
