// The whole of PHATGOOSE on two planted tasks: experts and gates trained apart, pooled, and routed by token.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "skein/experts/bank.h"
#include "skein/route/routed_slot.h"
#include "skein/route/router.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

// What is planted: the tasks share no token. Task 0 speaks tokens 3-48, task 1 tokens 49-94, and the answer is the last
// token of the input, one higher. Words of real tasks overlap; this test shows that the machinery of training, pooling
// and routing finds a difference where there is one, not how well it does on language.
TrainData planted_task(int task, int count, std::uint64_t seed) {
  const std::int64_t low = task == 0 ? 3 : 49;
  TrainData data = tiny::random_data(count, seed, low, low + 45);
  for (EncodedExample& example : data.examples) example.target = {example.input.back() + 1};
  return data;
}

struct PlantedExpert {
  LoraAdapter adapter;
  GateFile gate;
  double loss_before = 0, loss_after = 0;
};

PlantedExpert train_planted(const Backbone& backbone, int task) {
  const TrainData data = planted_task(task, 64, 100 + static_cast<std::uint64_t>(task));
  const TrainData none;
  TrainOptions options;
  options.steps = 60;
  options.batch = 16;
  options.lora.rank = 4;
  options.lora.seed = static_cast<std::uint64_t>(task);
  options.lora.a_std = 0.1;
  const auto env = make_memory_env();
  PlantedExpert result;
  result.loss_before = mean_token_loss(backbone, nullptr, data, 64);
  const tiny::Expert expert(backbone, options);
  run_training(*env, backbone, expert.trainee, data, none, tiny::run_in("expert"), options);
  result.loss_after = mean_token_loss(backbone, &expert.lora, data, 64);
  result.adapter = expert.lora.to_adapter("tiny", false);
  options.steps = 100;  // as the paper has it
  const GatedLora gated(result.adapter, backbone.slots(), backbone.compute());
  run_training(*env, backbone, {&gated, gated.parameters(), gated.parameter_names()}, data, none, tiny::run_in("gate"),
               options);
  result.gate = gated.to_gate(options.steps, "");
  return result;
}

TEST(PlantedTasks, TokensGoToTheirOwnTasksExpert) {
  const auto backbone = tiny::backbone();
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  for (const int task : {0, 1}) {
    PlantedExpert expert = train_planted(*backbone, task);
    EXPECT_LT(expert.loss_after, 0.7 * expert.loss_before) << "task " << task;
    adapters.push_back(std::move(expert.adapter));
    gates.push_back(std::move(expert.gate));
  }
  const auto bank = std::make_shared<ExpertBank>(adapters, std::vector<std::string>{"first", "second"},
                                                 backbone->slots(), backbone->compute());
  RouterOptions router_options;
  router_options.top_k = 2;
  const RoutedSlots routed(bank, make_router(router_options, *bank, gates, backbone->compute()));
  for (const int task : {0, 1}) {
    const TrainData unseen = planted_task(task, 40, 900 + static_cast<std::uint64_t>(task));
    std::vector<std::int64_t> idxs(unseen.examples.size());
    for (std::size_t i = 0; i < idxs.size(); ++i) idxs[i] = static_cast<std::int64_t>(i);
    const auto record = std::make_shared<RoutingRecord>(static_cast<int>(backbone->slots().size()), 2);
    ForwardState state{&routed, record};
    const at::NoGradGuard no_grad;
    backbone->forward(make_target_batch(unseen, idxs, *backbone).batch, nullptr, state);
    const double own = expert_shares(*record)[task].item<double>();
    RecordProperty(concat("own_share_of_task_", task), std::to_string(own));
    EXPECT_GT(own, 0.8) << "task " << task;
  }
}

}  // namespace
}  // namespace skein
