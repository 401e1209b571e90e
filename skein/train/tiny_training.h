// For tests: a tiny model of tests/golden/models, examples as token ids, and one expert's training on them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "skein/base/concat.h"
#include "skein/experts/trainable_lora.h"
#include "skein/io/env.h"
#include "skein/nn/backbone.h"
#include "skein/nn/compute.h"
#include "skein/spec/base_model.h"
#include "skein/train/data_order.h"
#include "skein/train/target_batch.h"
#include "skein/train/train_loop.h"

namespace skein::tiny {

inline std::string golden_path(const std::string& name) { return concat(SKEIN_SOURCE_DIR, "/tests/golden/", name); }

inline std::unique_ptr<Backbone> backbone(const std::string& model = "llama", c10::ScalarType dtype = at::kFloat) {
  set_compute_threads(1);  // tensors this small are slower with more
  const BaseModel base = or_throw(open_base_model(real_env(), golden_path("models/" + model)));
  return load_backbone(base, ComputeOptions{.dtype = dtype});
}

// Random tokens in [low, high): inputs of 2 to 9 tokens, targets of 1 to 4.
inline TrainData random_data(int count, std::uint64_t seed, std::int64_t low = 3, std::int64_t high = 96) {
  TrainData data;
  for (int i = 0; i < count; ++i) {
    std::uint64_t counter = 0;
    const auto draw = [&](std::int64_t from, std::int64_t to) {
      const std::uint64_t bits = counter_random(seed, static_cast<std::uint64_t>(i), counter++);
      return static_cast<TokenId>(from + static_cast<std::int64_t>(bits % static_cast<std::uint64_t>(to - from)));
    };
    EncodedExample example;
    example.input.resize(static_cast<std::size_t>(draw(2, 10)));
    example.target.resize(static_cast<std::size_t>(draw(1, 5)));
    for (TokenId& token : example.input) token = draw(low, high);
    for (TokenId& token : example.target) token = draw(low, high);
    data.examples.push_back(std::move(example));
    data.ids.push_back(concat("example-", i));
  }
  return data;
}

// Few steps, large enough to move every parameter.
inline TrainOptions options() {
  TrainOptions options;
  options.steps = 6;
  options.batch = 4;
  options.save_every = 2;
  options.lora.rank = 4;
  options.lora.a_std = 0.1;
  return options;
}

// A LoRA expert of a backbone and what run_training needs of it.
struct Expert {
  explicit Expert(const Backbone& backbone, const TrainOptions& options = tiny::options())
      : lora(backbone.slots(), options.lora, backbone.compute().device),
        trainee{&lora, lora.parameters(), lora.parameter_names()} {}
  // B is zero at first and A then has no gradient: for tests that look at one step.
  void randomise_b() {
    const at::NoGradGuard no_grad;
    std::uint64_t counter = 0;
    for (std::size_t i = 1; i < trainee.parameters.size(); i += 2) {
      float* values = trainee.parameters[i].mutable_data_ptr<float>();
      for (std::int64_t j = 0; j < trainee.parameters[i].numel(); ++j) {
        values[j] =
            0.3F * (static_cast<float>(counter_random(5, 0, counter++) >> 40) / static_cast<float>(1 << 23) - 1);
      }
    }
  }
  TrainableLora lora;
  Trainee trainee;
};

inline TrainRun run_in(const std::string& folder) {
  TrainRun run;
  run.what = "tiny expert";
  run.state_folder = folder;
  run.identity = Json{{"data", "random"}};
  run.stop = [] { return false; };
  return run;
}

inline std::vector<at::Tensor> copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

inline bool same_bits(const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right) {
  if (left.size() != right.size()) return false;
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (!left[i].detach().equal(right[i].detach())) return false;
  }
  return true;
}

}  // namespace skein::tiny
