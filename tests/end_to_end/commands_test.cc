// Every command that computes, there and back, on a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::vector<std::string> kPlain = {"--dtype", "f32", "--threads", "1"};

std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// Two experts on letter tasks, gated, pooled.
struct Pool {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string ab = letter_task(folder, "ab", "ab", 16);
  std::string xyz = letter_task(folder, "xyz", "xyz", 18);
  std::string first = tiny_expert(folder, base, ab, "first");
  std::string second = tiny_expert(folder, base, xyz, "second");
  std::string library = folder / "pool";

  Pool() {
    EXPECT_EQ(run_skein({"library", "create", library, "--base", base}).code, 0);
    const Outcome added = run_skein({"library", "add", library, first, second});
    EXPECT_EQ(added.code, 0) << added.err;
  }
};

// The f32 values of `logits` in a file.
std::vector<float> logits_in(const std::string& path) {
  const std::string bytes = read_file(path);
  if (bytes.size() < 8) return {};
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  std::vector<float> values((bytes.size() - 8 - header) / 4);
  std::memcpy(values.data(), bytes.data() + 8 + header, 4 * values.size());
  return values;
}

TEST(Logits, TextAndItsIdsGiveTheSameBytes) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder);
  const Outcome text =
      run_skein(with({"logits", "--base", base, "--input", "Hello", "--out", folder / "a", "--json"}, kPlain));
  ASSERT_EQ(text.code, 0) << text.err;
  const Json result = json_of(text.out);
  EXPECT_EQ(result["shape"], (Json{5, 96}));
  std::string ids;
  for (const Json& id : result["input_ids"]) ids += (ids.empty() ? "" : ",") + id.dump();
  ASSERT_EQ(run_skein(with({"logits", "--base", base, "--input-ids", ids, "--out", folder / "b"}, kPlain)).code, 0);
  EXPECT_EQ(read_file(folder / "a"), read_file(folder / "b"));
  EXPECT_EQ(logits_in(folder / "a").size(), 5u * 96u);
  const Outcome again = run_skein(with({"logits", "--base", base, "--input", "Hello", "--out", folder / "a"}, kPlain));
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("--overwrite"));
}

TEST(Logits, AnAdapterIsTheSingleExpertOfAPool) {
  const Pool pool;
  const auto logits = [&](const std::string& name, const std::vector<std::string>& model) {
    const Outcome outcome = run_skein(
        with(with({"logits", "--base", pool.base, "--input", "ab12", "--out", pool.folder / name}, model), kPlain));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return logits_in(pool.folder / name);
  };
  const auto base = logits("base.st", {});
  const auto adapter = logits("adapter.st", {"--adapter", pool.first});
  const auto single = logits("single.st", {"--library", pool.library, "--router", "single", "--expert", "first"});
  const auto only = logits("only.st", {"--library", pool.library, "--top-k", "1", "--only", "first"});
  EXPECT_NE(base, adapter) << "the expert does nothing";
  ASSERT_EQ(adapter.size(), single.size());
  // phatgoose with one expert weighs it 1/(1 + 1e-6): logits of order 1 then agree to a few 1e-5.
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    EXPECT_NEAR(adapter[i], single[i], 1e-5) << i;
    EXPECT_NEAR(adapter[i], only[i], 5e-5) << i;
  }
}

TEST(Generate, ContinuesTheSameWayEachTimeAndAsJson) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder);
  const auto words = with({"generate", "--base", base, "--prompt", "ab", "--max-new-tokens", "12"}, kPlain);
  const Outcome first = run_skein(words), json = run_skein(with(words, {"--json"}));
  ASSERT_EQ(first.code, 0) << first.err;
  const Json result = json_of(json.out);
  EXPECT_EQ(first.out, result["text"].get<std::string>() + "\n");
  EXPECT_EQ(result["prompt_tokens"], 2);
  EXPECT_LE(result["tokens"].size(), 12u);
  const auto sampled = [&](const char* seed) {
    return run_skein(with(words, {"--temperature", "1", "--seed", seed})).out;
  };
  EXPECT_EQ(sampled("1"), sampled("1"));
  EXPECT_NE(sampled("1"), sampled("2"));
}

TEST(Generate, WritesATraceOfItsTokens) {
  const Pool pool;
  const Outcome outcome = run_skein(with({"generate", "--base", pool.base, "--library", pool.library, "--prompt", "ab",
                                          "--max-new-tokens", "4", "--trace", pool.folder / "trace.jsonl", "--json"},
                                         kPlain));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto lines = json_lines_of(read_file(pool.folder / "trace.jsonl"));
  ASSERT_EQ(lines.size(), 2 + json_of(outcome.out)["tokens"].size());
  EXPECT_EQ(lines[0]["text"], "a");
  EXPECT_EQ(lines[0]["part"], "prompt");
  EXPECT_EQ(lines.back()["part"], "answer");
}

TEST(Trace, EveryModuleNamesTwoExpertsWhoseWeightsAddUpToOne) {
  const Pool pool;
  const Outcome outcome =
      run_skein(with({"trace", "--base", pool.base, "--library", pool.library, "--prompt", "ab", "--max-new-tokens",
                      "0", "--html", pool.folder / "trace.html", "--against", "uniform", "--json"},
                     kPlain));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const Json& line : json_lines_of(outcome.out)) {
    EXPECT_EQ(line["modules"].size(), 3u * 7u) << "3 layers of 7 linears";
    for (const auto& [module, chosen] : line["modules"].items()) {
      double sum = 0;
      for (const Json& pair : chosen) sum += pair[1].get<double>();
      EXPECT_NEAR(sum, 1, 1e-5) << module;
    }
  }
  EXPECT_THAT(read_file(pool.folder / "trace.html"),
              testing::AllOf(HasSubstr("\"experts\":[\"first\",\"second\"]"), HasSubstr("\"uniform, top 2\"")));
  EXPECT_EQ(run_skein(with({"trace", "--base", pool.base, "--prompt", "ab"}, kPlain)).code, 2)
      << "no experts, nothing to trace";
}

TEST(Eval, WritesEveryAnswerAndTheSharesAndPrintsATable) {
  const Pool pool;
  const std::string out = pool.folder / "results.jsonl", shares = pool.folder / "shares.jsonl";
  const auto words =
      with({"eval", "--base", pool.base, "--library", pool.library, "--tasks", pool.ab, pool.xyz}, kPlain);
  const Outcome outcome = run_skein(with(words, {"--out", out, "--shares", shares, "--json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json result = json_of(outcome.out);
  ASSERT_EQ(result["tasks"].size(), 2u);
  EXPECT_EQ(result["tasks"][0]["task"], "ab");
  EXPECT_EQ(result["tasks"][0]["n"], 16);
  EXPECT_DOUBLE_EQ(result["tasks"][1]["chance"].get<double>(), 1.0 / 3);
  const auto lines = json_lines_of(read_file(out));
  ASSERT_EQ(lines.size(), 34u);
  EXPECT_EQ(lines[0]["target"], "a");
  const auto rows = json_lines_of(read_file(shares));
  ASSERT_EQ(rows.size(), 34u);
  EXPECT_NEAR(rows[0]["shares"]["first"].get<double>() + rows[0]["shares"]["second"].get<double>(), 1, 1e-6);
  EXPECT_FALSE(exists(out + ".partial"));
  EXPECT_EQ(run_skein(with(words, {"--out", out})).code, 1) << "an existing output is refused";
  const Outcome table = run_skein(with(words, {"--scoring", "lm-eval", "--limit", "3"}));
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, testing::AllOf(HasSubstr("per character"), HasSubstr("majority"), HasSubstr("95 % interval")));
}

TEST(Eval, GoesOnWhereAKilledRunStopped) {
  const Pool pool;
  const std::string out = pool.folder / "results.jsonl";
  // The second task is too long to be finished between two looks at the file.
  const std::string second = letter_task(pool.folder, "second", "xyz", 400);
  const auto words = with({"eval", "--base", pool.base, "--tasks", pool.ab, second, "--out", out}, kPlain);
  ASSERT_EQ(run_skein(words).code, 0);
  const std::string unbroken = read_file(out);
  std::filesystem::remove(out);
  std::string partial;
  std::size_t end_of_first = std::string::npos;
  {
    RunningSkein running(words);
    while (end_of_first == std::string::npos && running.is_running()) {
      partial = read_file(out + ".partial");
      const std::size_t done = partial.find("\"done\":\"ab\"");
      if (done != std::string::npos) end_of_first = partial.find('\n', done);
      usleep(1000);
    }
    running.signal(SIGKILL);
    running.wait();
  }
  ASSERT_NE(end_of_first, std::string::npos) << "killed inside the second task; the file held: " << partial;
  ASSERT_FALSE(exists(out));
  // The worst a kill leaves: the settings, the first task, half a line.
  write_file(out + ".partial", partial.substr(0, end_of_first + 1) + "{\"task\":\"xy");
  const Outcome outcome = run_skein(words);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("1 tasks are done"));
  EXPECT_EQ(read_file(out), unbroken);
}

TEST(TrainExpert, WritesWhatPeftReadsAndACardAndALog) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder), data = letter_task(folder, "ab", "ab", 16);
  const std::string expert = tiny_expert(folder, base, data, "expert");
  EXPECT_THAT(names_in(expert), testing::IsSupersetOf({"adapter_config.json", "adapter_model.safetensors", "card.json",
                                                       "gates", "log.jsonl"}));
  const Json config = json_of(read_file(expert + "/adapter_config.json"));
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["lora_alpha"], 1) << "PHATGOOSE's scale is 1/R";
  EXPECT_EQ(json_lines_of(read_file(expert + "/log.jsonl")).size(), 4u) << "one line a step";
  EXPECT_FALSE(exists(expert + ".training"));
  EXPECT_FALSE(exists(expert + ".gate-training"));
}

TEST(TrainExpert, PaperRulesGiveWayToWhatIsTyped) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder), data = letter_task(folder, "ab", "ab", 8);
  const Outcome outcome = run_skein(with({"train", "expert", "--base", base, "--data", data, "--out", folder / "expert",
                                          "--paper", "phatgoose", "--steps", "2", "--batch", "4", "--json"},
                                         kPlain));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string card = read_file(folder / "expert/card.json");
  EXPECT_THAT(card, HasSubstr("\"loss_mean\": \"microbatch\""));
  EXPECT_THAT(card, HasSubstr("\"steps\": 2"));
  EXPECT_THAT(card, HasSubstr("\"rank\": 16"));
}

TEST(Extract, TurnsAFineTuneIntoAnExpertThatDoesWhatItDoes) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder), tuned = tiny_base(folder, "tuned");
  // Rank one at one linear: a single changed weight.
  poke_f32(tuned + "/model.safetensors", "model.layers.1.mlp.up_proj.weight", 45, 0.75F);
  const Outcome outcome = run_skein(
      with({"extract", "--base", base, "--tuned", tuned, "--rank", "4", "--out", folder / "expert", "--json"}, kPlain));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(json_of(outcome.out)["left_out"], testing::IsEmpty());
  ASSERT_EQ(run_skein(with({"logits", "--base", tuned, "--input", "ab12", "--out", folder / "tuned.st"}, kPlain)).code,
            0);
  ASSERT_EQ(run_skein(with({"logits", "--base", base, "--adapter", folder / "expert", "--input", "ab12", "--out",
                            folder / "expert.st"},
                           kPlain))
                .code,
            0);
  const auto want = logits_in(folder / "tuned.st"), got = logits_in(folder / "expert.st");
  ASSERT_EQ(want.size(), got.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(want[i], got[i], 1e-4) << i;
}

TEST(EncoderDecoder, TrainsPoolsRoutesTracesAndAnswers) {
  const TemporaryFolder folder;
  const std::string base = tiny_t5(folder), data = letter_task(folder, "ab", "ab", 12), pool = folder / "pool";
  const std::string first = tiny_expert(folder, base, data, "first"),
                    second = tiny_expert(folder, base, data, "second");
  ASSERT_EQ(run_skein({"library", "create", pool, "--base", base}).code, 0);
  ASSERT_EQ(run_skein({"library", "add", pool, first, second}).code, 0);
  const std::vector<std::string> routed = with({"--base", base, "--library", pool}, kPlain);

  const Outcome traced = run_skein(with(with({"trace", "--prompt", "ab", "--max-new-tokens", "2", "--json"}, routed),
                                        {"--html", folder / "t.html"}));
  ASSERT_EQ(traced.code, 0) << traced.err;
  const auto lines = json_lines_of(traced.out);
  EXPECT_EQ(lines[0]["part"], "source");
  EXPECT_TRUE(lines[0]["modules"].contains("encoder.block.0.layer.0.SelfAttention.q"));
  EXPECT_TRUE(lines[0]["modules"].contains("decoder.block.0.layer.1.EncDecAttention.k"))
      << "cross-attention reads the source";
  EXPECT_FALSE(lines[0]["modules"].contains("decoder.block.0.layer.1.EncDecAttention.q"));
  EXPECT_TRUE(lines.back()["modules"].contains("decoder.block.0.layer.1.EncDecAttention.q"));

  EXPECT_EQ(run_skein(with({"eval", "--tasks", data, "--out", folder / "results.jsonl"}, routed)).code, 0);
  EXPECT_EQ(json_lines_of(read_file(folder / "results.jsonl")).size(), 12u);
  const Outcome logits =
      run_skein(with({"logits", "--input", "ab", "--target", "b", "--out", folder / "l.st", "--json"}, routed));
  ASSERT_EQ(logits.code, 0) << logits.err;
  EXPECT_EQ(json_of(logits.out)["shape"][0], json_of(logits.out)["target_ids"].size()) << "one row per target token";
  EXPECT_EQ(run_skein(with({"logits", "--input", "ab", "--out", folder / "m.st"}, routed)).code, 2)
      << "a target is needed";
  EXPECT_EQ(run_skein(with({"generate", "--prompt", "ab", "--max-new-tokens", "4"}, routed)).code, 0);
}

TEST(LibraryCheck, CaptureNamesAnExpertThatTakesEverything) {
  const Pool pool;
  // With a factor below one, sharing alike is too much for somebody; with two experts and factor 2 nobody can pass.
  const Outcome fair = run_skein({"library", "check", pool.library, "--capture", "--data", pool.ab, "--limit", "4"});
  EXPECT_EQ(fair.code, 0) << fair.err;
  const Outcome strict =
      run_skein({"library", "check", pool.library, "--capture", "--data", pool.ab, "--factor", "0.9", "--json"});
  EXPECT_EQ(strict.code, 3) << strict.err;
  EXPECT_FALSE(json_of(strict.out)["capturing"].empty());
}

}  // namespace
}  // namespace skein
