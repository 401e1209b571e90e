// Routers, gates and distillation through the program, on a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kEncoder = SKEIN_SOURCE_DIR "/tests/golden/models/bert";

// Two experts on letter tasks, gated, pooled.
struct Pool {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string ab = letter_task(folder, "ab", "ab", 16);
  std::string xyz = letter_task(folder, "xyz", "xyz", 18);
  std::string library = folder / "pool";

  Pool() {
    const std::string first = tiny_expert(folder, base, ab, "first"), second = tiny_expert(folder, base, xyz, "second");
    EXPECT_EQ(run_skein({"library", "create", library, "--base", base}).code, 0);
    EXPECT_EQ(run_skein({"library", "add", library, first, second}).code, 0);
  }

  Outcome run(std::vector<std::string> words, bool routed = true) const {
    if (routed) words.insert(words.end(), {"--base", base, "--library", library});
    words.insert(words.end(), {"--dtype", "f32", "--threads", "1"});
    return run_skein(words);
  }
  // Bytes of the logits under a router.
  std::string logits(const std::vector<std::string>& router) const {
    std::vector<std::string> words = {"logits", "--input", "ab12", "--out", folder / "logits.st", "--overwrite"};
    words.insert(words.end(), router.begin(), router.end());
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return read_file(folder / "logits.st");
  }
};

TEST(Routers, EachSwitchChangesWhatIsComputed) {
  const Pool pool;
  const std::string own = pool.logits({"--top-k", "1"});
  for (const std::vector<std::string>& router :
       std::vector<std::vector<std::string>>{{"--router", "arrow", "--top-k", "2", "--router-temperature", "5"},
                                             {"--router", "spectr", "--top-k", "2"},
                                             {"--router", "smear"},
                                             {"--router", "merged"},
                                             {"--router", "merged-factors"},
                                             {"--top-k", "2", "--choice-by", "sequence"},
                                             {"--top-k", "2", "--choice-for", "model"},
                                             {"--top-k", "2", "--gates", "random"},
                                             {"--router", "merged", "--general", "first"}}) {
    EXPECT_NE(pool.logits(router), own) << router[1];
  }
  EXPECT_EQ(pool.logits({"--top-k", "2", "--router-top-p", "0.01"}), own);  // a share so small is one expert's
  const Outcome refused = pool.run(
      {"logits", "--input", "ab", "--out", pool.folder / "l", "--router", "retrieval", "--sentence-encoder", kEncoder});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("gates fit --method retrieval"));
}

TEST(Gates, AreFittedRecordedAndRead) {
  const Pool pool;
  const std::string made = pool.logits({"--router", "arrow", "--top-k", "1"});
  const auto fit = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"gates", "fit", pool.library});
    return pool.run(words, /*routed=*/false);
  };
  ASSERT_EQ(fit({"--method", "arrow"}).code, 0);
  EXPECT_EQ(pool.logits({"--router", "arrow", "--top-k", "1"}), made);
  EXPECT_THAT(fit({"--method", "arrow"}).err, HasSubstr("--overwrite"));
  EXPECT_EQ(fit({"--method", "arrow", "--power-iteration", "--overwrite"}).code, 0);
  EXPECT_EQ(fit({"--method", "spectr", "--directions", "1", "--power", "0"}).code, 0);
  const Outcome needs = fit({"--method", "average-activation", "--data", "first=" + pool.ab});
  EXPECT_EQ(needs.code, 2);
  EXPECT_THAT(needs.err, HasSubstr("--data second=DATA"));
  const std::vector<std::string> data = {"--data", "first=" + pool.ab, "--data", "second=" + pool.xyz};
  const auto with_data = [&](std::vector<std::string> words) {
    words.insert(words.end(), data.begin(), data.end());
    return fit(words);
  };
  const Outcome averaged = with_data({"--method", "average-activation"});
  EXPECT_EQ(averaged.code, 0) << averaged.err;
  const Outcome trained = with_data({"--method", "phatgoose", "--steps", "2", "--batch", "4", "--overwrite"});
  EXPECT_EQ(trained.code, 0) << trained.err;
  // Words that the tiny encoder knows.
  write_file(pool.folder / "fox.jsonl", "{\"input\": \"the quick brown fox\", \"target\": \"a\"}\n");
  write_file(pool.folder / "dog.jsonl", "{\"input\": \"over the lazy dog\", \"target\": \"b\"}\n");
  const Outcome embedded =
      fit({"--method", "retrieval", "--sentence-encoder", kEncoder, "--data", "first=" + (pool.folder / "fox.jsonl"),
           "--data", "second=" + (pool.folder / "dog.jsonl")});
  EXPECT_EQ(embedded.code, 0) << embedded.err;
  EXPECT_EQ(run_skein({"library", "check", pool.library}).code, 0);  // every file as recorded
  EXPECT_NE(pool.logits({"--router", "average-activation", "--top-k", "1"}), "");

  // The text of a prompt decides who answers it.
  for (const auto& [prompt, expert, other] :
       {std::tuple{"the quick brown fox", "first", "second"}, std::tuple{"over the lazy dog", "second", "first"}}) {
    const Outcome traced = pool.run({"trace", "--router", "retrieval", "--sentence-encoder", kEncoder, "--top-k", "1",
                                     "--prompt", prompt, "--max-new-tokens", "0", "--json"});
    ASSERT_EQ(traced.code, 0) << traced.err;
    EXPECT_THAT(traced.out, HasSubstr(std::string("\"") + expert + "\""));
    EXPECT_THAT(traced.out, Not(HasSubstr(std::string("\"") + other + "\"")));
  }
}

TEST(ExpertMemory, PagingChangesNoLogit) {
  const Pool pool;
  const std::string whole = pool.logits({});
  EXPECT_EQ(pool.logits({"--expert-memory", "4K"}), whole);
  const Outcome outcome =
      pool.run({"logits", "--input", "ab12", "--out", pool.folder / "paged.st", "--expert-memory", "4K", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json pages = json_of(outcome.out)["expert_pages"];
  EXPECT_GT(pages["misses"].get<int>(), 2);
  EXPECT_LE(pages["bytes_kept"].get<int>(), 8192) << "one piece, the largest of which is of two pages";
  EXPECT_GT(pages["bytes_stored"].get<int>(), 8192);
  EXPECT_THAT(outcome.err, HasSubstr("MB kept of"));
  const Outcome written =
      pool.run({"generate", "--prompt", "ab", "--max-new-tokens", "3", "--json", "--expert-memory", "1G"});
  ASSERT_EQ(written.code, 0) << written.err;
  EXPECT_GT(json_of(written.out)["expert_pages"]["hits"].get<int>(), 0);
  EXPECT_EQ(pool.run({"logits", "--input", "ab", "--out", pool.folder / "no.st", "--expert-memory", "1K", "--general",
                      "first"})
                .code,
            2);
}

TEST(Trace, TwoRoutersStandSideBySide) {
  const Pool pool;
  const Outcome outcome = pool.run(
      {"trace", "--prompt", "ab", "--max-new-tokens", "2", "--against", "arrow", "--html", pool.folder / "both.html"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(read_file(pool.folder / "both.html"), HasSubstr("\"router\":\"arrow, top 2\""));
}

TEST(Distill, GivesAnAdapterAndSaysHowFarItIsFromThePool) {
  const Pool pool;
  const std::string out = pool.folder / "distilled";
  const Outcome distilled =
      pool.run({"distill", "--router", "merged", "--data", pool.ab, "--limit", "6", "--out", out, "--json"});
  ASSERT_EQ(distilled.code, 0) << distilled.err;
  const Json report = json_of(distilled.out);
  EXPECT_NEAR(report["weights"]["first"].get<double>(), 0.5, 1e-6);
  // A pool that always mixes alike is its own adapter.
  EXPECT_NEAR(report["divergence_from_pool"]["distilled"].get<double>(), 0, 1e-5);
  EXPECT_NEAR(report["loss"]["distilled"].get<double>(), report["loss"]["pool"].get<double>(), 1e-3);
  const std::string used = pool.folder / "used.st";
  ASSERT_EQ(run_skein({"logits", "--base", pool.base, "--adapter", out, "--input", "ab12", "--out", used, "--dtype",
                       "f32", "--threads", "1"})
                .code,
            0);
  const std::string merged = pool.logits({"--router", "merged"}), alone = read_file(used);
  ASSERT_EQ(merged.size(), alone.size());

  const Outcome small =
      pool.run({"distill", "--data", pool.ab, "--limit", "4", "--rank", "1", "--out", pool.folder / "small", "--json"});
  ASSERT_EQ(small.code, 0) << small.err;
  EXPECT_EQ(json_of(small.out)["rank"], 1);
  // Training on the pool's outputs starts there and comes nearer.
  const Outcome taught = pool.run({"distill", "--method", "outputs", "--data", pool.ab, "--limit", "4", "--rank", "1",
                                   "--steps", "20", "--batch", "4", "--out", pool.folder / "taught", "--json"});
  ASSERT_EQ(taught.code, 0) << taught.err;
  const Json lesson = json_of(taught.out);
  EXPECT_EQ(lesson["rank"], 1);
  EXPECT_EQ(lesson["training_divergences"].size(), 20u);
  EXPECT_LT(lesson["divergence_from_pool"]["distilled"].get<double>(),
            json_of(small.out)["divergence_from_pool"]["distilled"].get<double>());
  const Outcome hub = pool.run({"distill", "--method", "lorahub", "--data", pool.ab, "--limit", "4", "--generations",
                                "3", "--penalty", "0", "--out", pool.folder / "hub", "--json"});
  ASSERT_EQ(hub.code, 0) << hub.err;
  EXPECT_LE(json_of(hub.out)["loss"]["distilled"].get<double>(), json_of(hub.out)["loss"]["base"].get<double>());
  EXPECT_EQ(pool.run({"distill", "--data", pool.ab, "--out", pool.folder / "hub"}).code, 1);  // it is there
}

TEST(LibraryCheck, CaptureNamesAnExpertWhoseUpdateOutweighsTheOthers) {
  const Pool pool;
  // Against a pool of two the larger is its own median: below one, the factor names it.
  const Outcome outcome = run_skein({"library", "check", pool.library, "--capture", "--data", pool.ab, "--limit", "2",
                                     "--router", "arrow", "--size-factor", "0.99"});
  EXPECT_EQ(outcome.code, 3) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("times the median's size"));
}

}  // namespace
}  // namespace skein
