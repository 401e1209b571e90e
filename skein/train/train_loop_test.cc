#include "skein/train/train_loop.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <thread>

#include <ATen/ops/randn_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/experts/trainable_lora.h"
#include "skein/io/fault_env.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/loss.h"
#include "skein/train/tiny_training.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

using testing::HasSubstr;

const TrainData kNone;

std::vector<Json> log_lines(Env& env, const std::string& folder) {
  std::vector<Json> lines;
  std::istringstream text(or_throw(read_text_file(env, log_file(folder))));
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

// The lines without their times.
std::string timeless_log(Env& env, const std::string& folder) {
  std::string text;
  for (Json line : log_lines(env, folder)) {
    line.erase("seconds");
    text += line.dump() + "\n";
  }
  return text;
}

// ---- agreement with PyTorch ----

struct Golden {
  explicit Golden(const std::string& name)
      : file(or_throw(open_safetensors(real_env(), tiny::golden_path(concat("train/", name, ".safetensors"))))) {
    for (int i = 0; i < 4; ++i) {
      data.examples.push_back(
          EncodedExample{.input = tokens(concat("input.", i)), .target = tokens(concat("target.", i))});
      data.ids.push_back(std::to_string(i));
    }
  }
  at::Tensor tensor(const std::string& name) const { return load_tensor(*file, name, {}); }
  std::vector<double> doubles(const std::string& name) const {
    const std::optional<TensorView> view = file->view(name);
    std::vector<double> values(view->bytes.size() / sizeof(double));
    std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
    return values;
  }
  std::vector<TokenId> tokens(const std::string& name) const {
    const std::optional<TensorView> view = file->view(name);
    std::vector<std::int64_t> values(view->bytes.size() / sizeof(std::int64_t));
    std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
    return {values.begin(), values.end()};
  }
  std::unique_ptr<Checkpoint> file;
  TrainData data;
};

// As tools/goldens/make_train_goldens.py has them.
TrainOptions golden_options(double clip) {
  TrainOptions options;
  options.steps = 4;
  options.batch = 4;
  options.warmup_ratio = 0.5;
  options.adam_eps = 1e-3;
  options.clip_norm = clip;
  options.lora.rank = 4;
  return options;
}

void expect_golden_steps(const Golden& golden, const Backbone& backbone, const Trainee& trainee,
                         const TrainOptions& options) {
  const auto env = make_memory_env();
  run_training(*env, backbone, trainee, golden.data, kNone, tiny::run_in("t"), options);
  const auto losses = golden.doubles("losses"), norms = golden.doubles("norms"), rates = golden.doubles("rates");
  const auto lines = log_lines(*env, "t");
  ASSERT_EQ(lines.size(), losses.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    // Losses near 5 of f32 logits near 3: error_f32 of the tiny models' logits is about 1e-5.
    EXPECT_NEAR(lines[i]["loss"].get<double>(), losses[i], 2e-5) << "step " << i + 1;
    EXPECT_NEAR(lines[i]["grad_norm"].get<double>(), norms[i], 1e-4 * norms[i]) << "step " << i + 1;
    EXPECT_DOUBLE_EQ(lines[i]["lr"].get<double>(), rates[i]) << "step " << i + 1;
  }
  // error_f32: what PyTorch's own f32 steps differ from f64 by. Another order of sums may do several times that.
  const double tolerance = 8 * golden.tensor("error_f32").item<double>();
  for (std::size_t i = 0; i < trainee.names.size(); ++i) {
    const at::Tensor after = golden.tensor("after." + trainee.names[i]);
    EXPECT_LE((trainee.parameters[i] - after).abs().max().item<double>(), tolerance) << trainee.names[i];
  }
}

class GoldenModels : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GoldenModels, AnExpertTakesTheStepsOfPeftAndTorchOptim) {
  const auto [model, gated_expert] = GetParam();
  const Golden golden(concat("expert_", model));
  const auto backbone = tiny::backbone(model);
  const TrainOptions options = golden_options(0.5);
  const tiny::Expert expert(*backbone, options);
  {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < expert.trainee.names.size(); ++i) {
      expert.trainee.parameters[i].copy_(golden.tensor("before." + expert.trainee.names[i]));
    }
  }
  expect_golden_steps(golden, *backbone, expert.trainee, options);
}

TEST_P(GoldenModels, AGateTakesTheStepsOfTheFormula) {
  const auto [model, gated_expert] = GetParam();
  const Golden golden(concat("gate_", model));
  const auto backbone = tiny::backbone(model);
  const auto folder = tiny::golden_path(concat("agreement/experts/", gated_expert));
  const LoraAdapter adapter = or_throw(read_lora_adapter(real_env(), folder, backbone->slots()));
  const GatedLora gated(adapter, backbone->slots(), backbone->compute());
  expect_golden_steps(golden, *backbone, {&gated, gated.parameters(), gated.parameter_names()}, golden_options(0.3));
}

INSTANTIATE_TEST_SUITE_P(TrainLoop, GoldenModels,
                         testing::Values(std::pair("llama", "llama_1"), std::pair("t5_v11", "t5_0")),
                         [](const auto& test) { return std::string(test.param.first); });

// ---- gradients ----

std::vector<at::Tensor> gradients_of(const Backbone& backbone, const Trainee& trainee, const TrainData& data) {
  std::vector<std::int64_t> idxs(data.examples.size());
  for (std::size_t i = 0; i < idxs.size(); ++i) idxs[i] = static_cast<std::int64_t>(i);
  const TargetBatch batch = make_target_batch(data, idxs, backbone);
  const at::AutoGradMode record(true);
  const at::Tensor hidden = target_hidden(backbone, batch, trainee.filler);
  const at::Tensor weights =
      row_weights(batch.target_lengths, LossMean::kToken, {.target_tokens = batch.targets.size(0)});
  hidden.backward(target_loss(backbone, hidden, batch.targets, weights).hidden_gradient);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : trainee.parameters) gradients.push_back(parameter.grad().clone());
  return gradients;
}

// d/dh loss(parameter + h * direction) at 0, by two central differences combined so that the error is of order h^4.
double slope(const Backbone& backbone, const Trainee& trainee, const TrainData& data, const at::Tensor& parameter,
             const at::Tensor& direction) {
  const at::NoGradGuard no_grad;
  const at::Tensor before = parameter.clone();
  const auto loss_at = [&](double h) {
    parameter.copy_(before + h * direction);
    return mean_token_loss(backbone, trainee.filler, data, 100);
  };
  constexpr double kStep = 0.05;
  const double near = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
  const double far = (loss_at(2 * kStep) - loss_at(-2 * kStep)) / (4 * kStep);
  parameter.copy_(before);
  return (4 * near - far) / 3;
}

TEST(TrainLoop, GradientsOfAWholeStepEqualFiniteDifferences) {
  at::manual_seed(3);
  for (const char* model : {"llama", "gemma3", "t5_v11"}) {
    const auto backbone = tiny::backbone(model);
    tiny::Expert expert(*backbone);
    expert.randomise_b();
    const TrainData data = tiny::random_data(5, 17);
    const auto gradients = gradients_of(*backbone, expert.trainee, data);
    double total = 0;
    for (const at::Tensor& gradient : gradients) total += gradient.square().sum().item<double>();
    total = std::sqrt(total);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const at::Tensor& parameter = expert.trainee.parameters[i];
      const double norm = gradients[i].norm().item<double>();
      at::Tensor random = at::randn_like(gradients[i]);
      random /= random.norm();
      // Losses carry f32 errors of about 1e-6, divided by a step of 0.1: 1e-5 in a slope, and a factor of 10 for the
      // difference's own error of order h^4.
      const double tolerance = 1e-4 + 2e-3 * norm;
      EXPECT_NEAR(slope(*backbone, expert.trainee, data, parameter, gradients[i] / norm), norm, tolerance)
          << model << " " << expert.trainee.names[i] << " along its gradient; all together " << total;
      EXPECT_NEAR(slope(*backbone, expert.trainee, data, parameter, random),
                  (gradients[i] * random).sum().item<double>(), tolerance)
          << model << " " << expert.trainee.names[i] << " in a random direction";
    }
  }
}

TEST(TrainLoop, RecomputingBlocksChangesNoGradient) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(5, 17);
  std::vector<at::Tensor> gradients[2];
  for (const bool recompute : {false, true}) {
    tiny::Expert expert(*backbone);
    expert.randomise_b();
    backbone->set_checkpoint_blocks(recompute);
    gradients[recompute] = gradients_of(*backbone, expert.trainee, data);
  }
  EXPECT_TRUE(tiny::same_bits(gradients[0], gradients[1]));
}

std::vector<at::Tensor> trained(const Backbone& backbone, const TrainData& data, const TrainOptions& options) {
  const auto env = make_memory_env();
  tiny::Expert expert(backbone, options);
  run_training(*env, backbone, expert.trainee, data, kNone, tiny::run_in("t"), options);
  return tiny::copies(expert.trainee.parameters);
}

double largest_difference(const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right) {
  double largest = 0;
  for (std::size_t i = 0; i < left.size(); ++i)
    largest = std::max(largest, (left[i] - right[i]).abs().max().item<double>());
  return largest;
}

TEST(TrainLoop, AccumulationOverMicrobatchesEqualsTheFullBatch) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(11, 23);
  for (const LossMean mean : {LossMean::kToken, LossMean::kSequence}) {
    TrainOptions options = tiny::options();
    options.batch = 7;
    options.adam_eps = 1e-3;  // well conditioned: see make_train_goldens.py
    options.loss_mean = mean;
    const auto full = trained(*backbone, data, options);
    for (const int micro_batch : {1, 3}) {
      options.micro_batch = micro_batch;
      // Gradients of size 1 at most differ by roundings (1e-7); an update is lr / eps = 5 times that, six times over.
      EXPECT_LE(largest_difference(trained(*backbone, data, options), full), 2e-5)
          << loss_mean_name(mean) << micro_batch;
    }
  }
}

TEST(TrainLoop, TheThreeMeansDifferWhereLengthsDo) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(11, 23);
  TrainOptions options = tiny::options();
  options.micro_batch = 2;
  const auto token = trained(*backbone, data, options);
  options.loss_mean = LossMean::kMicrobatch;
  const auto microbatch = trained(*backbone, data, options);
  options.loss_mean = LossMean::kSequence;
  const auto sequence = trained(*backbone, data, options);
  EXPECT_GE(largest_difference(token, microbatch), 1e-4);
  EXPECT_GE(largest_difference(token, sequence), 1e-4);
  EXPECT_GE(largest_difference(microbatch, sequence), 1e-4);
}

TEST(TrainLoop, TheFirstUpdateHasRateZeroAndTheSecondHasNot) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(8, 1);
  TrainOptions options = tiny::options();
  options.warmup_ratio = 0.5;
  const auto env = make_memory_env();
  tiny::Expert expert(*backbone, options);
  const auto before = tiny::copies(expert.trainee.parameters);
  TrainRun run = tiny::run_in("t");
  int asked = 0;
  run.stop = [&] { return ++asked > 1; };  // one step
  run_training(*env, *backbone, expert.trainee, data, kNone, run, options);
  EXPECT_TRUE(tiny::same_bits(expert.trainee.parameters, before));
  options.resume = true;
  asked = 0;
  run_training(*env, *backbone, expert.trainee, data, kNone, run, options);
  EXPECT_FALSE(tiny::same_bits(expert.trainee.parameters, before));
}

// ---- PHATGOOSE's gate ----

TEST(TrainLoop, TheFirstGateStepSeesExactlyHalfTheExpert) {
  const auto backbone = tiny::backbone();
  const auto folder = tiny::golden_path("agreement/experts/llama_1");
  const LoraAdapter adapter = or_throw(read_lora_adapter(real_env(), folder, backbone->slots()));
  const GatedLora gated(adapter, backbone->slots(), backbone->compute());
  const TrainData data = tiny::random_data(4, 9);
  const std::vector<std::int64_t> idxs{0, 1, 2, 3};
  const auto record = std::make_shared<GateRecord>(static_cast<int>(backbone->slots().size()));
  ForwardState state{&gated, record};
  backbone->forward(make_target_batch(data, idxs, *backbone).batch, nullptr, state);
  std::size_t seen = 0;
  for (const auto& calls : record->gates) {
    for (const at::Tensor& gates : calls) {
      EXPECT_TRUE(gates.eq(0.5).all().item<bool>());
      ++seen;
    }
  }
  EXPECT_EQ(seen, adapter.modules.size());
}

TEST(TrainLoop, TrainingAGateChangesNothingElse) {
  const auto backbone = tiny::backbone();
  const auto folder = tiny::golden_path("agreement/experts/llama_1");
  const LoraAdapter adapter = or_throw(read_lora_adapter(real_env(), folder, backbone->slots()));
  const GatedLora gated(adapter, backbone->slots(), backbone->compute());
  const TrainData data = tiny::random_data(8, 9);
  const double base_before = mean_token_loss(*backbone, nullptr, data, 8);
  const double half_before = mean_token_loss(*backbone, &gated, data, 8);
  const auto env = make_memory_env();
  const Trainee trainee{&gated, gated.parameters(), gated.parameter_names()};
  const auto report = run_training(*env, *backbone, trainee, data, data, tiny::run_in("t"), tiny::options());
  EXPECT_NE(mean_token_loss(*backbone, &gated, data, 8), half_before);
  EXPECT_EQ(report.best_step, report.steps) << "a gate is validated once, at the end";
  // With the gates back at zero the loss is the same to the bit: neither the base nor A and B moved.
  const at::NoGradGuard no_grad;
  for (const at::Tensor& gate : trainee.parameters) gate.zero_();
  EXPECT_EQ(mean_token_loss(*backbone, &gated, data, 8), half_before);
  EXPECT_EQ(mean_token_loss(*backbone, nullptr, data, 8), base_before);
}

// ---- validation ----

TEST(TrainLoop, KeepsTheParametersOfTheLowestValidationLoss) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(6, 31), valid = tiny::random_data(6, 32);
  TrainOptions options = tiny::options();
  options.steps = 12;
  options.learning_rate = 0.05;  // random tokens learnt by heart: the loss on other ones soon rises
  options.valid_every = 2;
  const auto env = make_memory_env();
  tiny::Expert expert(*backbone, options);
  TrainRun run = tiny::run_in("t");
  run.keep_best = true;
  const TrainReport report = run_training(*env, *backbone, expert.trainee, data, valid, run, options);
  double lowest = INFINITY, last = 0;
  std::int64_t lowest_step = -1, count = 0;
  for (const Json& line : log_lines(*env, "t")) {
    if (!line.contains("valid_loss")) continue;
    last = line["valid_loss"].get<double>();
    ++count;
    if (last > lowest) continue;
    lowest = last;
    lowest_step = line["step"].get<std::int64_t>();
  }
  EXPECT_EQ(count, 7);  // before training and after 2, 4, ..., 12
  ASSERT_LT(lowest, last) << "the last step must not be the best for this test";
  EXPECT_EQ(report.best_step, lowest_step);
  EXPECT_EQ(report.best_valid_loss, lowest);
  EXPECT_EQ(mean_token_loss(*backbone, &expert.lora, valid, options.batch), lowest);
}

TEST(TrainLoop, OfEqualValidationLossesTheNewerWins) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(6, 31);
  TrainOptions options = tiny::options();
  options.learning_rate = 0;
  options.valid_every = 2;
  const auto env = make_memory_env();
  tiny::Expert expert(*backbone, options);
  TrainRun run = tiny::run_in("t");
  run.keep_best = true;
  EXPECT_EQ(run_training(*env, *backbone, expert.trainee, data, data, run, options).best_step, 6);
}

// ---- never lost ----

struct Interrupted : testing::Test {
  std::unique_ptr<Backbone> backbone = tiny::backbone();
  TrainData data = tiny::random_data(10, 41), valid = tiny::random_data(5, 42);
  TrainOptions options = [] {
    TrainOptions options = tiny::options();
    options.micro_batch = 2;                 // two micro-batches a step
    options.lora.target_kinds = {"q_proj"};  // few tensors, few file operations to fail
    options.valid_every = 3;
    return options;
  }();

  // Runs (or goes on) in `folder` until the stop function says so; the parameters it ends with.
  std::vector<at::Tensor> run(Env& env, const std::string& folder, bool resume, std::function<bool()> stop,
                              TrainReport* report = nullptr) {
    tiny::Expert expert(*backbone, options);
    TrainRun run = tiny::run_in(folder);
    run.keep_best = true;
    run.stop = std::move(stop);
    options.resume = resume;
    const TrainReport result = run_training(env, *backbone, expert.trainee, data, valid, run, options);
    if (report != nullptr) *report = result;
    return tiny::copies(expert.trainee.parameters);
  }
  static bool never() { return false; }
};

TEST_F(Interrupted, AtAnyMicrobatchAndResumedGivesTheSameBitsAndTheSameLog) {
  const auto env = make_memory_env();
  TrainReport whole;
  const auto unbroken = run(*env, "unbroken", false, never, &whole);
  for (int stop_at = 1; stop_at <= 12; ++stop_at) {
    const std::string folder = concat("broken", stop_at);
    int asked = 0;
    TrainReport report;
    run(
        *env, folder, false, [&] { return ++asked >= stop_at; }, &report);
    ASSERT_TRUE(report.interrupted);
    EXPECT_EQ(report.steps, (stop_at - 1) / 2);
    EXPECT_EQ(report.state_folder, folder);
    EXPECT_TRUE(tiny::same_bits(run(*env, folder, true, never, &report), unbroken)) << "stopped at " << stop_at;
    EXPECT_FALSE(report.interrupted);
    EXPECT_EQ(timeless_log(*env, folder), timeless_log(*env, "unbroken"));
    EXPECT_EQ(report.tokens, whole.tokens);
    EXPECT_EQ(report.target_tokens, whole.target_tokens);
    EXPECT_EQ(report.first_loss, whole.first_loss);
    EXPECT_EQ(report.best_step, whole.best_step);
  }
}

TEST_F(Interrupted, ByAFailureOfAnyFileOperationAndResumedGivesTheSameBits) {
  const auto unbroken_files = make_memory_env();
  const auto unbroken = run(*unbroken_files, "t", false, never);
  std::int64_t num_operations = 0;
  {
    const auto files = make_memory_env();
    const auto counting = make_fault_env(*files);
    run(*counting, "t", false, never);
    num_operations = counting->operations();
  }
  for (std::int64_t operation = 0; operation < num_operations; ++operation) {
    const auto files = make_memory_env();
    const auto failing = make_fault_env(*files);
    failing->set_plan({.fail_at_operation = operation});
    EXPECT_THROW(run(*failing, "t", false, never), Failure) << operation;
    failing->set_plan({});
    or_throw(failing->lose_unsynced());
    EXPECT_TRUE(tiny::same_bits(run(*files, "t", true, never), unbroken)) << "failed at operation " << operation;
  }
}

TEST_F(Interrupted, ByAFullDiskKeepsTheLastGoodState) {
  const auto files = make_memory_env();
  const auto unbroken = run(*files, "unbroken", false, never);
  const auto size = or_throw(files->facts(state_file("unbroken"))).size_bytes;
  const auto full = make_fault_env(*files);
  full->set_plan({.write_budget_bytes = static_cast<std::int64_t>(size * 3 / 2)});  // one state, not two
  EXPECT_THROW(run(*full, "t", false, never), Failure);
  EXPECT_TRUE(files->exists(state_file("t")));
  TrainReport report;
  int asked = 0;
  run(
      *files, "t", true, [&] { return ++asked > 0; }, &report);
  EXPECT_EQ(report.steps, 2);  // save_every
  EXPECT_TRUE(tiny::same_bits(run(*files, "t", true, never), unbroken));
}

// The real thing: a child process that is killed by kill -9, in the middle of whatever it does.
using InterruptedDeathTest = Interrupted;

TEST_F(InterruptedDeathTest, ByKill9AndResumedGivesTheSameBits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // the child is a new process: libtorch's threads survive no fork
  const auto memory = make_memory_env();
  const auto unbroken = run(*memory, "unbroken", false, never);
  for (const int kill_at : {1, 6, 9, 12}) {
    const std::string folder = concat(testing::TempDir(), "skein_kill_", kill_at);
    std::filesystem::remove_all(folder);
    int asked = 0;
    EXPECT_EXIT(run(real_env(), folder, false, [&] { return ++asked >= kill_at && raise(SIGKILL) == 0; }),
                testing::KilledBySignal(SIGKILL), "");
    EXPECT_TRUE(tiny::same_bits(run(real_env(), folder, true, never), unbroken)) << "killed at micro-batch " << kill_at;
    std::filesystem::remove_all(folder);
  }
}

TEST_F(InterruptedDeathTest, ByKill9AtARandomMomentAndResumedGivesTheSameBits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  options.steps = 40;
  options.save_every = 1;  // most of the time is spent writing states
  const auto memory = make_memory_env();
  const auto unbroken = run(*memory, "unbroken", false, never);
  for (const int milliseconds : {20, 60, 130}) {
    const std::string folder = concat(testing::TempDir(), "skein_kill_after_", milliseconds);
    std::filesystem::remove_all(folder);
    const auto killed_while_training = [&] {
      std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        raise(SIGKILL);
      }).detach();
      run(real_env(), folder, false, never);
      std::this_thread::sleep_for(std::chrono::seconds(10));  // should it have been faster
    };
    EXPECT_EXIT(killed_while_training(), testing::KilledBySignal(SIGKILL), "");
    EXPECT_TRUE(tiny::same_bits(run(real_env(), folder, true, never), unbroken))
        << "killed after " << milliseconds << " ms";
    std::filesystem::remove_all(folder);
  }
}

// A storm: by default a handful of kills, $SKEIN_KILL_STORM of them for the whole of it. Half at random moments, half
// right before a file operation, drawn from all between the opening of the first state and the syncing of the last
// one's folder. One kill a test: a child runs its own test only.
int num_kills() {
  const char* asked = std::getenv("SKEIN_KILL_STORM");
  return asked != nullptr ? std::max(1, std::atoi(asked)) : 6;
}

class KillStormDeathTest : public Interrupted, public testing::WithParamInterface<int> {};

TEST_P(KillStormDeathTest, ResumedGivesTheSameBits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const int kill = GetParam();
  options.save_every = 1;
  const auto memory = make_memory_env();
  const auto counting = make_fault_env(*memory);
  const auto unbroken = run(*counting, "unbroken", false, never);
  const auto operation =
      static_cast<std::int64_t>(counter_random(7, 1, kill) % static_cast<std::uint64_t>(counting->operations()));
  const std::string folder = concat(testing::TempDir(), "skein_storm_", kill);
  std::filesystem::remove_all(folder);
  const auto killed = [&] {
    if (kill % 2 == 0) {
      std::thread([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(1000 + counter_random(7, 0, kill) % 150000));
        raise(SIGKILL);
      }).detach();
      run(real_env(), folder, false, never);
    } else {
      const auto failing = make_fault_env(real_env());
      failing->set_plan({.fail_at_operation = operation});
      try {
        run(*failing, folder, false, never);
      } catch (const Failure&) {  // the operation was not done; neither is anything after it
      }
    }
    raise(SIGKILL);
  };
  EXPECT_EXIT(killed(), testing::KilledBySignal(SIGKILL), "");
  EXPECT_TRUE(tiny::same_bits(run(real_env(), folder, true, never), unbroken));
  std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Kill, KillStormDeathTest, testing::Range(0, num_kills()));

TEST_F(Interrupted, AStateIsNotOverwrittenByARunThatDoesNotResume) {
  const auto env = make_memory_env();
  int asked = 0;
  run(*env, "t", false, [&] { return ++asked > 4; });
  try {
    run(*env, "t", false, never);
    FAIL() << "a state was overwritten";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("--resume"));
  }
}

// The tiny model's last norm bounds its loss near a uniform guess, so no learning rate makes it explode. Instead a run
// is stopped, its first loss of about 5.3 made 0.01 in the saved state, and resumed: now every loss is far above the
// first.
TEST(TrainLoop, AnExplodingLossStopsWithStepAndExamplesAndKeepsTheState) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(6, 51);
  TrainOptions options = tiny::options();
  options.learning_rate = 0;
  const auto env = make_memory_env();
  tiny::Expert expert(*backbone, options);
  TrainRun run = tiny::run_in("t");
  int asked = 0;
  run.stop = [&] { return ++asked > 2; };  // two steps
  run_training(*env, *backbone, expert.trainee, data, kNone, run, options);
  const auto load = [&] {
    const auto moments = make_optimiser(expert.trainee.parameters, options)->state(expert.trainee.names);
    return or_throw(
        load_training_state(*env, "t", {expert.trainee.names, expert.trainee.parameters, moments}, run.identity));
  };
  TrainingState state = load();
  state.report.first_loss = 0.01;
  or_throw(save_training_state(*env, "t", state, expert.trainee.names, run.identity));
  options.resume = true;
  run.stop = [] { return false; };
  try {
    run_training(*env, *backbone, expert.trainee, data, kNone, run, options);
    FAIL() << "a loss of 5 after one of 0.01, twice, went unnoticed";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), testing::ContainsRegex("^step 3 of 6 gave a loss of [0-9.]+ on examples "
                                                       "example-[0-5], example-[0-5], example-[0-5], example-[0-5];"));
    EXPECT_THAT(failure.what(), HasSubstr("kept in t"));
  }
  EXPECT_EQ(load().report.steps, 2);
}

TEST(TrainLoop, ANanStopsBeforeItReachesMoreWeights) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(6, 51);
  tiny::Expert expert(*backbone);
  {
    const at::NoGradGuard no_grad;
    expert.trainee.parameters[1].fill_(std::nanf(""));  // B of the first module
  }
  const auto before = tiny::copies(expert.trainee.parameters);
  const auto env = make_memory_env();
  try {
    run_training(*env, *backbone, expert.trainee, data, kNone, tiny::run_in("t"), tiny::options());
    FAIL() << "a NaN went unnoticed";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), testing::ContainsRegex("^step 1 of 6 gave a (loss|gradient norm) of NaN on examples"));
  }
  for (std::size_t i = 2; i < before.size(); ++i) EXPECT_TRUE(expert.trainee.parameters[i].equal(before[i]));
}

}  // namespace
}  // namespace skein
