// The whole of PHATGOOSE on two planted tasks: experts and gates trained apart, pooled, and routed by token.
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "skein/experts/bank.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/route/routed_slot.h"
#include "skein/route/router.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

// What is planted: the tasks share no token (task 0 speaks tokens 3-48, task 1 tokens 49-94), and the embeddings of
// each task's tokens lean towards a direction of the task's own, kLean times as long as an embedding. In a random model
// the tokens of a task have nothing else in common, while in a trained one the words of a domain do. The answer is the
// input's last token, one higher. So this test shows that training, pooling and routing find a difference that is
// there, not how well they tell tasks apart on language.
constexpr double kLean = 1.0;

std::unique_ptr<Backbone> planted_backbone() {
  const BaseModel base = or_throw(open_base_model(real_env(), tiny::golden_path("models/llama")));
  std::vector<at::Tensor> tensors;
  std::vector<NamedTensor> named;
  for (const TensorInfo& info : base.weights->tensors()) {
    tensors.push_back(load_tensor(*base.weights, info.name, {}));
    if (info.name == "model.embed_tokens.weight") {  // (V, D)
      at::manual_seed(20);
      for (const std::int64_t first : {3, 49}) {
        at::Tensor rows = tensors.back().narrow(0, first, 46);
        const at::Tensor direction = at::randn({rows.size(1)});
        rows += kLean * direction * (rows.norm() / std::sqrt(46.0) / direction.norm());
      }
    }
    named.push_back({info.name, view_of(tensors.back())});
  }
  const auto env = make_memory_env();
  or_throw(env->make_folders("base"));
  or_throw(write_text_atomically(*env, "base/config.json",
                                 or_throw(read_text_file(real_env(), tiny::golden_path("models/llama/config.json")))));
  or_throw(write_safetensors(*env, "base/model.safetensors", named));
  set_compute_threads(1);
  return load_backbone(or_throw(open_base_model(*env, "base")), ComputeOptions{});
}

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
  const auto backbone = planted_backbone();
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  for (const int task : {0, 1}) {
    PlantedExpert expert = train_planted(*backbone, task);
    EXPECT_LT(expert.loss_after, 0.7 * expert.loss_before) << "task " << task;
    adapters.push_back(std::move(expert.adapter));
    gates.push_back(std::move(expert.gate));
  }
  const std::vector<std::string> names{"first", "second"};
  const auto bank = std::make_shared<ExpertBank>(adapters, names, backbone->slots(), backbone->compute());
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
