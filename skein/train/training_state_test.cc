#include "skein/train/training_state.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/io/fault_env.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

using testing::HasSubstr;

const std::vector<std::string> kNames{"m.lora_A", "m.lora_B"};

std::vector<at::Tensor> pair_of(double value) { return {at::full({2, 3}, value), at::full({4, 2}, value + 0.5)}; }

std::vector<NamedState> moments_of(double value) {
  const auto first = pair_of(value);
  return {{"first_moments/m.lora_A", first[0]}, {"first_moments/m.lora_B", first[1]}};
}

TrainingState state_at(std::int64_t step, double value) {
  TrainingState state;
  state.num_threads = 2;
  state.num_ranks = 3;
  state.report.steps = step;
  state.report.first_loss = 3.1415926535897931;
  state.report.best_step = 4;
  state.report.best_valid_loss = 1.0 / 3;
  state.report.tokens = 123456789012;
  state.parameters = pair_of(value);
  state.optimiser = moments_of(value + 1);
  state.best = pair_of(value + 3);
  return state;
}

Json identity(double rate) {
  return Json{{"options", {{"learning_rate", rate}, {"steps", 9}}}, {"data", {{"a.jsonl", "00ff"}}}};
}

Result<TrainingState> load(Env& env, const Json& now) {
  return load_training_state(env, "out.training", {kNames, pair_of(0), moments_of(0)}, now);
}

TEST(TrainingState, ComesBackAsItWasSaved) {
  const auto env = make_memory_env();
  ASSERT_TRUE(env->make_folders("out.training").ok());
  const TrainingState saved = state_at(7, 0.125);
  ASSERT_TRUE(save_training_state(*env, "out.training", saved, kNames, identity(5e-3)).ok());
  const TrainingState loaded = or_throw(load(*env, identity(5e-3)));
  EXPECT_EQ(loaded.report.steps, 7);
  EXPECT_EQ(loaded.num_threads, 2);
  EXPECT_EQ(loaded.num_ranks, 3);
  EXPECT_EQ(loaded.report.first_loss, saved.report.first_loss);
  EXPECT_EQ(loaded.report.best_valid_loss, saved.report.best_valid_loss);
  EXPECT_EQ(loaded.report.tokens, saved.report.tokens);
  EXPECT_TRUE(tiny::same_bits(loaded.parameters, saved.parameters));
  ASSERT_EQ(loaded.optimiser.size(), saved.optimiser.size());
  for (std::size_t i = 0; i < saved.optimiser.size(); ++i) {
    EXPECT_EQ(loaded.optimiser[i].name, saved.optimiser[i].name);
    EXPECT_TRUE(loaded.optimiser[i].tensor.equal(saved.optimiser[i].tensor));
  }
  EXPECT_TRUE(tiny::same_bits(loaded.best, saved.best));
}

TEST(TrainingState, RefusesAChangedOptionOrDataFileByName) {
  const auto env = make_memory_env();
  ASSERT_TRUE(env->make_folders("out.training").ok());
  ASSERT_TRUE(save_training_state(*env, "out.training", state_at(7, 1), kNames, identity(5e-3)).ok());
  const auto other_rate = load(*env, identity(1e-3));
  ASSERT_FALSE(other_rate.ok());
  EXPECT_THAT(other_rate.error().message, HasSubstr("options.learning_rate was 0.005 and is now 0.001"));
  Json other_data = identity(5e-3);
  other_data["data"]["a.jsonl"] = "1234";
  EXPECT_THAT(load(*env, other_data).error().message, HasSubstr("data.a.jsonl was \"00ff\" and is now \"1234\""));
  Json more_data = identity(5e-3);
  more_data["data"]["b.jsonl"] = "1234";
  EXPECT_THAT(load(*env, more_data).error().message, HasSubstr("data.b.jsonl was absent"));
  Json less = identity(5e-3);
  less["data"] = Json::object();
  EXPECT_THAT(load(*env, less).error().message, HasSubstr("data.a.jsonl was \"00ff\" and is now absent"));
}

TEST(TrainingState, RefusesParametersOfOtherShapesAndNames) {
  const auto env = make_memory_env();
  ASSERT_TRUE(env->make_folders("out.training").ok());
  ASSERT_TRUE(save_training_state(*env, "out.training", state_at(7, 1), kNames, identity(5e-3)).ok());
  const auto wider =
      load_training_state(*env, "out.training", {kNames, {at::zeros({2, 4}), at::zeros({4, 2})}, {}}, identity(5e-3));
  ASSERT_FALSE(wider.ok());
  EXPECT_THAT(wider.error().message, HasSubstr("parameters/m.lora_A of shape (2, 4)"));
  EXPECT_FALSE(
      load_training_state(*env, "out.training", {{"n.lora_A", "m.lora_B"}, pair_of(0), {}}, identity(5e-3)).ok());
}

// Saving over an older state, with each file operation failing in turn and then the power cut: what is there afterwards
// is the whole old state or the whole new one.
TEST(TrainingState, AFailureAtAnyOperationLeavesAWholeState) {
  std::int64_t num_operations = 0;
  const auto save_failing_at = [&](std::int64_t operation) {
    const auto files = make_memory_env();
    const auto env = make_fault_env(*files);
    or_throw(env->make_folders("out.training"));
    or_throw(save_training_state(*env, "out.training", state_at(1, 1), kNames, identity(5e-3)));
    env->set_plan({.fail_at_operation = operation});  // counted from here
    const bool saved = save_training_state(*env, "out.training", state_at(2, 5), kNames, identity(5e-3)).ok();
    num_operations = env->operations();
    env->set_plan({});
    or_throw(env->lose_unsynced());
    const TrainingState left = or_throw(load(*files, identity(5e-3)));
    EXPECT_TRUE(left.report.steps == 1 || left.report.steps == 2);
    EXPECT_TRUE(tiny::same_bits(left.parameters, pair_of(left.report.steps == 1 ? 1 : 5)));
    EXPECT_TRUE(tiny::same_bits(left.best, pair_of(left.report.steps == 1 ? 4 : 8)));
    EXPECT_TRUE(!saved || left.report.steps == 2);
    return saved;
  };
  ASSERT_TRUE(save_failing_at(-1));
  const std::int64_t all_operations = num_operations;
  ASSERT_GE(all_operations, 4);  // create, append, sync, rename
  for (std::int64_t operation = 0; operation < all_operations; ++operation) save_failing_at(operation);
}

TEST(TrainingState, AFullDiskLeavesTheLastGoodState) {
  const auto files = make_memory_env();
  const auto env = make_fault_env(*files);
  or_throw(env->make_folders("out.training"));
  or_throw(save_training_state(*env, "out.training", state_at(1, 1), kNames, identity(5e-3)));
  env->set_plan({.write_budget_bytes = 100});
  EXPECT_FALSE(save_training_state(*env, "out.training", state_at(2, 5), kNames, identity(5e-3)).ok());
  EXPECT_EQ(or_throw(load(*files, identity(5e-3))).report.steps, 1);
}

TEST(TrainingState, KeepsAsManyStatesAsAsked) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("out.training"));
  for (int step = 1; step <= 5; ++step) {
    or_throw(save_training_state(*env, "out.training", state_at(step, step), kNames, identity(5e-3), /*keep=*/3));
  }
  EXPECT_TRUE(env->exists(state_file("out.training", 2)));
  EXPECT_FALSE(env->exists(state_file("out.training", 3)));
  or_throw(env->remove_file(state_file("out.training")));
  EXPECT_EQ(or_throw(load(*env, identity(5e-3))).report.steps, 4);
}

// Every byte of the newest state turned in turn (every 7th, to be quick): the state before it is taken, never a wrong
// one.
TEST(TrainingState, ADamagedNewestStateFallsBackToTheOneBefore) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("out.training"));
  for (int step = 1; step <= 2; ++step) {
    or_throw(save_training_state(*env, "out.training", state_at(step, step), kNames, identity(5e-3)));
  }
  const std::string path = state_file("out.training"), whole = or_throw(read_text_file(*env, path));
  for (std::size_t at = 8; at < whole.size(); at += 7) {
    if (whole[at] == ' ') continue;  // padding of the header
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    or_throw(write_text_atomically(*env, path, damaged));
    const auto loaded = load(*env, identity(5e-3));
    ASSERT_TRUE(loaded.ok()) << at << ": " << loaded.error().message;
    EXPECT_EQ(loaded->report.steps, 1) << "damage at " << at << " unnoticed";
    EXPECT_TRUE(tiny::same_bits(loaded->parameters, pair_of(1))) << at;
  }
  for (const std::size_t length : {std::size_t{0}, whole.size() / 3, whole.size() - 1}) {
    or_throw(write_text_atomically(*env, path, whole.substr(0, length)));
    EXPECT_EQ(or_throw(load(*env, identity(5e-3))).report.steps, 1) << "cut to " << length;
  }
}

TEST(TrainingState, RefusesAFileThatIsNoTrainingState) {
  const auto env = make_memory_env();
  ASSERT_TRUE(env->make_folders("out.training").ok());
  ASSERT_TRUE(write_text_atomically(*env, state_file("out.training"), "not safetensors").ok());
  EXPECT_FALSE(load(*env, identity(5e-3)).ok());
}

}  // namespace
}  // namespace skein
