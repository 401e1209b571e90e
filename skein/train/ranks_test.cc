#include "skein/train/ranks.h"

#include <algorithm>
#include <atomic>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/dist/thread_comm.h"
#include "skein/io/fault_env.h"
#include "skein/train/mixture_trainer.h"
#include "skein/train/tiny_training.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

using testing::HasSubstr;

TEST(ShareOf, RanksTakeAllInOrderAndEvenly) {
  for (const int ranks : {1, 2, 3, 5}) {
    for (const std::int64_t count : {0, 1, 4, 7, 100}) {
      std::vector<Share> shares(ranks);
      run_ranks(ranks, [&](Comm& comm) { shares[comm.rank()] = share_of(comm, count); });
      std::int64_t next = 0;
      for (const Share& share : shares) {
        EXPECT_EQ(share.first, next);
        EXPECT_LE(std::abs(share.count - count / ranks), 1);
        next += share.count;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(Together, OneRanksFailureIsEveryRanks) {
  std::atomic<int> failures = 0;
  run_ranks(3, [&](Comm& comm) {
    try {
      together(comm, [&] {
        if (comm.rank() == 1) throw Failure({"no disk here", ErrorKind::kUsage});
      });
    } catch (const Failure& failure) {
      EXPECT_THAT(failure.what(), HasSubstr("rank 1: no disk here"));
      EXPECT_EQ(failure.error().kind, ErrorKind::kUsage);
      ++failures;
    }
  });
  EXPECT_EQ(failures, 3);
}

// ---- training ----

struct Outcome {
  std::vector<at::Tensor> parameters;
  TrainReport report;
  std::vector<Json> log;  // of rank 0
};

enum class Kind { kLora, kMixture };

TrainOptions options_of(Kind kind) {
  TrainOptions options = tiny::options();
  options.batch = 7;
  options.adam_eps = 1e-3;  // well conditioned: see make_train_goldens.py
  options.valid_every = 2;
  if (kind == Kind::kMixture) options.balance_weight = options.z_loss_weight = 0.1;
  return options;
}

// One rank's part of a run in `env`.
Outcome train_on(
    Comm& comm, Env& env, Kind kind, const TrainOptions& options,
    const std::function<bool()>& stop = [] { return false; }) {
  const auto backbone = tiny::backbone();
  const TrainData data = tiny::random_data(11, 23), valid = tiny::random_data(6, 24);
  TrainRun run = tiny::run_in("t");
  run.comm = &comm;
  run.keep_best = true;
  run.stop = stop;
  const tiny::Expert expert(*backbone, options);
  MixtureInit init;
  init.router_std = 0.5;  // unequal loads
  MixtureConfig config{.kind = MixtureKind::kMolora, .num_experts = 3, .rank = 2, .alpha = 2, .top_k = 2};
  config.router_input = RouterInput::kHidden;
  MixtureSlots mixture(new_mixture(config, backbone->config(), init), backbone->config(), backbone->compute(),
                       MixtureSlots::Trains::kAll);
  const Trainee trainee = kind == Kind::kLora ? expert.trainee : mixture_trainee(mixture, options);
  Outcome result;
  result.report = run_training(env, *backbone, trainee, data, valid, run, options);
  result.parameters = tiny::copies(trainee.parameters);
  if (comm.rank() != 0) return result;
  std::istringstream text(or_throw(read_text_file(env, log_file("t"))));
  for (std::string line; std::getline(text, line);) result.log.push_back(Json::parse(line));
  return result;
}

std::vector<Outcome> train_on(int ranks, Env& env, Kind kind, const TrainOptions& options) {
  std::vector<Outcome> results(ranks);
  run_ranks(ranks, [&](Comm& comm) { results[comm.rank()] = train_on(comm, env, kind, options); });
  return results;
}

double largest_difference(const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right) {
  double largest = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    largest = std::max(largest, (left[i] - right[i]).abs().max().item<double>());
  }
  return largest;
}

// Gradients of size 1 at most differ by roundings (1e-7); an update is lr / eps = 5 times that, six times over.
constexpr double kTolerance = 2e-5;

TEST(Ranks, GiveTheResultOfOneRankUpToTheOrderOfSumsAndTheSameBitsOnEach) {
  for (const Kind kind : {Kind::kLora, Kind::kMixture}) {
    for (const LossMean mean : {LossMean::kToken, LossMean::kMicrobatch, LossMean::kSequence}) {
      TrainOptions options = options_of(kind);
      options.loss_mean = mean;
      options.micro_batch = 3;  // shares of 3, 3 and 1 sequences: of one, most ranks have none
      const auto env = make_memory_env();
      const Outcome one = train_on(1, *env, kind, options)[0];
      for (const int ranks : {2, 4}) {
        const auto other = make_memory_env();
        const std::vector<Outcome> results = train_on(ranks, *other, kind, options);
        EXPECT_LE(largest_difference(results[0].parameters, one.parameters), kTolerance)
            << loss_mean_name(mean) << ranks;
        for (const Outcome& result : results) {
          EXPECT_TRUE(tiny::same_bits(result.parameters, results[0].parameters));
          EXPECT_EQ(result.report.tokens, one.report.tokens);
          EXPECT_EQ(result.report.best_step, one.report.best_step);
        }
        ASSERT_EQ(results[0].log.size(), one.log.size());
        for (std::size_t i = 0; i < one.log.size(); ++i) {
          for (const char* key : {"loss", "valid_loss", "grad_norm", "tokens", "balance", "z_loss"}) {
            ASSERT_EQ(results[0].log[i].contains(key), one.log[i].contains(key)) << key;
            if (!one.log[i].contains(key)) continue;
            const double expected = one.log[i][key].get<double>();
            EXPECT_NEAR(results[0].log[i][key].get<double>(), expected, 1e-4 * std::max(1.0, expected)) << key;
          }
          if (!one.log[i].contains("expert_load")) continue;
          for (const auto& [layer, load] : one.log[i]["expert_load"].items()) {
            for (std::size_t e = 0; e < load.size(); ++e) {
              // Rounded to 1e-5 in the log.
              EXPECT_NEAR(results[0].log[i]["expert_load"][layer][e].get<double>(), load[e].get<double>(), 2e-5);
            }
          }
        }
      }
    }
  }
}

TEST(Ranks, StopTogetherAndGoOnWithAnotherNumber) {
  TrainOptions options = options_of(Kind::kLora);
  options.save_every = 0;
  const auto unbroken = make_memory_env(), broken = make_memory_env();
  const Outcome one = train_on(1, *unbroken, Kind::kLora, options)[0];
  std::vector<Outcome> stopped(3);
  run_ranks(3, [&](Comm& comm) {
    int asked = 0;
    // Only rank 1 is told to, in its fourth step.
    const auto stop = [&] { return comm.rank() == 1 && ++asked == 4; };
    stopped[comm.rank()] = train_on(comm, *broken, Kind::kLora, options, stop);
  });
  for (const Outcome& result : stopped) {
    EXPECT_TRUE(result.report.interrupted);
    EXPECT_EQ(result.report.steps, 3);
  }
  options.resume = true;
  const std::vector<Outcome> resumed = train_on(2, *broken, Kind::kLora, options);
  for (const Outcome& result : resumed) {
    EXPECT_EQ(result.report.steps, one.report.steps);
    EXPECT_EQ(result.report.tokens, one.report.tokens);
    EXPECT_LE(largest_difference(result.parameters, one.parameters), kTolerance);
  }
  EXPECT_TRUE(tiny::same_bits(resumed[0].parameters, resumed[1].parameters));
}

TEST(Ranks, AllFailWhereTheOneThatWritesCannot) {
  const auto files = make_memory_env();
  const auto env = make_fault_env(*files);
  env->set_plan({.fail_at_operation = 8});
  std::atomic<int> failures = 0;
  run_ranks(2, [&](Comm& comm) {
    try {
      train_on(comm, *env, Kind::kLora, options_of(Kind::kLora));
    } catch (const Failure&) {
      ++failures;
    }
  });
  EXPECT_EQ(failures, 2);
}

}  // namespace
}  // namespace skein
