// Mixtures, (IA)3 and the multitask baselines: trained, and taken by the other commands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <cmath>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::vector<std::string> kPlain = {"--dtype", "f32", "--threads", "1", "--no-sync"};

std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

struct Tasks {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string ab = letter_task(folder, "ab", "ab", 16);
  std::string xyz = letter_task(folder, "xyz", "xyz", 18);

  Outcome train(const std::string& what, const std::string& out, const std::vector<std::string>& more = {}) const {
    return run_skein(with(
        with({"train", what, "--base", base, "--data", ab, xyz, "--out", folder / out, "--steps", "12", "--batch", "4"},
             kPlain),
        more));
  }
  std::string logits(const std::vector<std::string>& model) const {
    const Outcome outcome = run_skein(with(
        with({"logits", "--base", base, "--input", "ab12", "--out", folder / "logits", "--overwrite"}, model), kPlain));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return read_file(folder / "logits");
  }
};

TEST(BaseBits, AnExpertIsTrainedOnFewBitsAndRunsOnTheWholeBase) {
  const Tasks tasks;
  std::vector<double> losses;
  for (const std::string bits : {"", "8", "4"}) {
    const std::vector<std::string> more =
        bits.empty() ? std::vector<std::string>{} : std::vector<std::string>{"--base-bits", bits};
    const Outcome trained = tasks.train("lora", "lora" + bits, with(more, {"--json", "--rank", "4"}));
    ASSERT_EQ(trained.code, 0) << trained.err;
    losses.push_back(json_of(trained.out)["first_loss"].get<double>());
    const Json card = json_of(read_file(tasks.folder / ("lora" + bits + "/card.json")));
    EXPECT_EQ(card["training"].value("base_bits", 0), bits.empty() ? 0 : std::stoi(bits));
    EXPECT_FALSE(tasks.logits({"--adapter", tasks.folder / ("lora" + bits)}).empty());
  }
  EXPECT_NE(losses[1], losses[0]);
  EXPECT_NEAR(losses[1], losses[0], 0.01 * losses[0]);
  EXPECT_NEAR(losses[2], losses[0], 0.1 * losses[0]);
  EXPECT_EQ(tasks.train("full", "full", {"--base-bits", "8"}).code, 2) << "no weight is frozen there";
}

TEST(Mixture, IsTrainedCountedAndTakenByEveryCommand) {
  const Tasks tasks;
  for (const std::string kind : {"mov", "molora"}) {
    const Outcome trained =
        tasks.train(kind, kind, {"--experts", "3", "--lr", "0.02", "--report", tasks.folder / (kind + ".html")});
    ASSERT_EQ(trained.code, 0) << trained.err;
    EXPECT_THAT(trained.err, HasSubstr("% of the base's"));
    EXPECT_THAT(trained.out, HasSubstr("mutual information"));
    EXPECT_THAT(read_file(tasks.folder / (kind + ".html")), HasSubstr("expert_load"));
    const std::string folder = tasks.folder / kind;
    const Json config = json_of(read_file(folder + "/mixture.json"));
    EXPECT_EQ(config["kind"], kind);
    EXPECT_EQ(config["num_experts"], 3);
    EXPECT_THAT(trained.err, HasSubstr("experts "));
    const Json card = json_of(read_file(folder + "/card.json"));
    EXPECT_EQ(card["tasks"], (Json{"ab", "xyz"}));
    EXPECT_EQ(card["specialisation"]["expert_load"]["ab"].size(), 3u);

    const std::vector<std::string> model = {"--mixture", folder};
    EXPECT_NE(tasks.logits(model), tasks.logits({}));
    const Outcome text =
        run_skein(with(with({"generate", "--base", tasks.base, "--prompt", "ab", "--max-new-tokens", "3"}, model),
                       {"--dtype", "f32"}));
    EXPECT_EQ(text.code, 0) << text.err;
    const Outcome traced = run_skein(with(with({"trace", "--base", tasks.base, "--prompt", "ab", "--out",
                                                tasks.folder / (kind + ".jsonl"), "--max-new-tokens", "2"},
                                               model),
                                          {"--dtype", "f32"}));
    ASSERT_EQ(traced.code, 0) << traced.err;
    const auto lines = json_lines_of(read_file(tasks.folder / (kind + ".jsonl")));
    ASSERT_FALSE(lines.empty());
    EXPECT_THAT(lines.front().dump(), HasSubstr("expert 1"));
    const Outcome evaluated = run_skein(with(
        with({"eval", "--base", tasks.base, "--tasks", tasks.ab, "--out", tasks.folder / (kind + "_results.jsonl")},
             model),
        {"--dtype", "f32"}));
    EXPECT_EQ(evaluated.code, 0) << evaluated.err;
    EXPECT_THAT(read_file(tasks.folder / (kind + "_results.jsonl")), HasSubstr("mixture " + kind));
  }
}

TEST(Mixture, OfAnotherBaseOrDamagedIsRefusedByName) {
  const Tasks tasks;
  ASSERT_EQ(tasks.train("mov", "mov", {"--experts", "2"}).code, 0);
  const std::string folder = tasks.folder / "mov", path = folder + "/mixture.json";
  const std::string config = read_file(path);
  const auto refused = [&](const std::string& json, const std::string& words) {
    write_file(path, json);
    const Outcome outcome = run_skein({"logits", "--base", tasks.base, "--mixture", folder, "--input", "ab", "--out",
                                       tasks.folder / "no", "--dtype", "f32"});
    EXPECT_EQ(outcome.code, 1) << json;
    EXPECT_THAT(outcome.err, HasSubstr(words));
    EXPECT_FALSE(exists(tasks.folder / "no"));
  };
  Json other = json_of(config);
  other["base_fingerprint"] = "00000000000000000000000000000000";
  refused(other.dump(), "00000000000000000000000000000000");
  Json more = json_of(config);
  more["num_experts"] = 3;
  refused(more.dump(), "expected numbers of shape (3,");
  Json many = json_of(config);
  many["num_experts"] = 1 << 30;
  refused(many.dump(), "1 to 4096");
  Json strange = json_of(config);
  strange["router_input"] = "tea leaves";
  refused(strange.dump(), "tea leaves");
  refused("{", "mixture.json");
}

TEST(Mixture, RoutersAloneAreTrainedOverAFrozenPool) {
  const Tasks tasks;
  const std::string first = tiny_expert(tasks.folder, tasks.base, tasks.ab, "first");
  const std::string second = tiny_expert(tasks.folder, tasks.base, tasks.xyz, "second");
  const std::string library = tasks.folder / "pool";
  ASSERT_EQ(run_skein({"library", "create", library, "--base", tasks.base}).code, 0);
  ASSERT_EQ(run_skein({"library", "add", library, first, second}).code, 0);
  const Outcome trained = tasks.train("molora", "routers", {"--freeze-experts", library, "--top-k", "1"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Json config = json_of(read_file(tasks.folder / "routers/mixture.json"));
  EXPECT_EQ(config["experts"], (Json{"first", "second"}));
  EXPECT_EQ(config["alpha"], config["rank"]);  // each expert's own scale is in B
  const Outcome merged = run_skein({"trace", "--base", tasks.base, "--mixture", tasks.folder / "routers", "--prompt",
                                    "ab", "--max-new-tokens", "0", "--dtype", "f32", "--json"});
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_THAT(merged.out, HasSubstr("first"));
}

TEST(Ia3, IsTrainedGatedAndPooledBesideLoras) {
  const Tasks tasks;
  const std::string vectors = tasks.folder / "vectors";
  const Outcome trained = run_skein(with({"train", "expert", "--kind", "ia3", "--base", tasks.base, "--data", tasks.ab,
                                          "--out", vectors, "--steps", "20", "--batch", "4", "--lr", "0.05"},
                                         kPlain));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(json_of(read_file(vectors + "/adapter_config.json"))["peft_type"], "IA3");
  const Outcome gated = run_skein(with(
      {"train", "gate", "--base", tasks.base, "--expert", vectors, "--data", tasks.ab, "--steps", "10", "--batch", "4"},
      kPlain));
  ASSERT_EQ(gated.code, 0) << gated.err;
  const std::string lora = tiny_expert(tasks.folder, tasks.base, tasks.xyz, "lora");
  const std::string library = tasks.folder / "pool";
  ASSERT_EQ(run_skein({"library", "create", library, "--base", tasks.base}).code, 0);
  const Outcome added = run_skein({"library", "add", library, vectors, lora});
  ASSERT_EQ(added.code, 0) << added.err;
  const std::string alone = tasks.logits({"--adapter", vectors});
  EXPECT_NE(alone, tasks.logits({}));
  EXPECT_EQ(alone, tasks.logits({"--library", library, "--router", "single", "--expert", "vectors"}));
  const std::string both = tasks.logits({"--library", library, "--top-k", "2"});
  EXPECT_NE(both, alone);
}

TEST(Baselines, AreTrainedOnAMixtureOfTasksByRates) {
  const Tasks tasks;
  const std::vector<std::string> rates = {"--sampling", "rates", "--task-cap", "16", "--task-temperature", "2"};
  ASSERT_EQ(tasks.train("lora", "lora", with(rates, {"--optimiser", "adafactor", "--lr", "0.01"})).code, 0);
  ASSERT_EQ(tasks.train("ia3", "ia3", rates).code, 0);
  const Outcome full = tasks.train("full", "full", with(rates, {"--lr", "0.001"}));
  ASSERT_EQ(full.code, 0) << full.err;
  EXPECT_NE(tasks.logits({"--adapter", tasks.folder / "lora"}), tasks.logits({}));
  // The folder is a base of its own, with its tokenizer.
  const Outcome text = run_skein(
      {"generate", "--base", tasks.folder / "full", "--prompt", "ab", "--max-new-tokens", "2", "--dtype", "f32"});
  EXPECT_EQ(text.code, 0) << text.err;
}

TEST(Mixture, AFullRunOfAllKindsResumesToTheSameBytes) {
  const Tasks tasks;
  for (const std::string kind : {"molora", "full"}) {
    const std::vector<std::string> more =
        kind == "full" ? std::vector<std::string>{"--lr", "0.001"} : std::vector<std::string>{"--experts", "2"};
    ASSERT_EQ(tasks.train(kind, kind + "_whole", more).code, 0);
    const auto command =
        with(with({"train", kind, "--base", tasks.base, "--data", tasks.ab, tasks.xyz, "--out",
                   tasks.folder / (kind + "_killed"), "--steps", "12", "--batch", "4", "--save-every", "1"},
                  kPlain),
             more);
    {
      RunningSkein running(command);
      while (running.is_running() &&
             read_file(tasks.folder / (kind + "_killed.training/log.jsonl")).find("\"step\":5,") == std::string::npos) {
      }
      running.signal(SIGKILL);
      running.wait();
    }
    if (!exists(tasks.folder / (kind + "_killed"))) {
      const Outcome resumed = run_skein(with(command, {"--resume"}));
      ASSERT_EQ(resumed.code, 0) << resumed.err;
    }
    const std::string weights = kind == "full" ? "/model.safetensors" : "/mixture.safetensors";
    EXPECT_EQ(read_file(tasks.folder / (kind + "_killed" + weights)),
              read_file(tasks.folder / (kind + "_whole" + weights)));
  }
}

TEST(Mixture, WrongCombinationsAreUsageErrors) {
  const Tasks tasks;
  const auto refused = [&](const std::vector<std::string>& more, const std::string& words) {
    const Outcome outcome = tasks.train("molora", "no", more);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(words));
    EXPECT_FALSE(exists(tasks.folder / "no"));
  };
  refused({"--balance", "0.01"}, "--top-k");
  refused({"--experts", "2", "--top-k", "3"}, "top-k is 3");
  refused({"--router-input", "projected"}, "projected");
  refused({"--target-modules", "wi_0"}, "wi_0");
}

}  // namespace
}  // namespace skein
