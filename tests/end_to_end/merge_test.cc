// skein merge as a user runs it: merged, checked, killed at any moment and gone on with, over several ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "skein/base/concat.h"
#include "skein/io/convert_elements.h"
#include "skein/io/safetensors.h"
#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A model of `layers` square matrices of made-up bf16 numbers.
void write_model(const std::string& folder, unsigned seed, int layers, std::int64_t width) {
  std::filesystem::create_directories(folder);
  std::mt19937 random(seed);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<NamedTensor> tensors;
  bytes.reserve(static_cast<std::size_t>(layers) + 2);
  const auto add = [&](const std::string& name, const Shape& shape) {
    std::vector<float> values(static_cast<std::size_t>(*checked_numel(shape)));
    for (auto& value : values) value = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31F;
    bytes.emplace_back(values.size() * 2);
    convert_from_f32(values.data(), static_cast<std::int64_t>(values.size()), DType::kBF16, bytes.back().data());
    tensors.push_back({name, TensorView{DType::kBF16, shape, bytes.back()}});
  };
  add("model.embed_tokens.weight", {64, width});
  for (int i = 0; i < layers; ++i) add(concat("model.layers.", i, ".mlp.up_proj.weight"), {width, width});
  add("model.norm.weight", {width});
  or_throw(write_safetensors(real_env(), folder + "/model.safetensors", tensors, {{"format", "pt"}}));
  write_file(folder + "/config.json", concat(R"({"model_type": "llama", "num_hidden_layers": )", layers, "}"));
}

// A base, two tunes of it, a recipe.
struct Models {
  explicit Models(int layers = 4, std::int64_t width = 96) {
    write_model(folder / "base", 1, layers, width);
    write_model(folder / "a", 2, layers, width);
    write_model(folder / "b", 3, layers, width);
    write_file(recipe, concat("merge_method: dare_ties\nbase_model: ", folder / "base", "\nmodels:\n- model: ",
                              folder / "a", "\n  parameters: {weight: 0.6, density: 0.5}\n- model: ", folder / "b",
                              "\n  parameters: {weight: 0.5, density: 0.4}\n"));
  }
  std::vector<std::string> merge(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> words{"merge", recipe, folder / out, "--progress", "none"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::string weights(const std::string& out) const { return read_file(folder / (out + "/model.safetensors")); }

  TemporaryFolder folder;
  std::string recipe = folder / "recipe.yml";
};

TEST(Merge, WritesAModelFolderThatVerifyAcceptsUntilAByteOfItChanges) {
  const Models models;
  const Outcome outcome = run_skein(models.merge("out", {"--json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json_of(outcome.out)["tensors"], 6);
  EXPECT_THAT(names_in(models.folder / "out"),
              testing::IsSupersetOf({"README.md", "config.json", "model.safetensors", "skein_merge.json"}));
  EXPECT_EQ(run_skein({"merge", "--verify", models.folder / "out"}).code, 0);
  std::string bytes = models.weights("out");
  bytes[bytes.size() - 3] ^= 4;
  write_file(models.folder / "out/model.safetensors", bytes);
  const Outcome verify = run_skein({"merge", "--verify", models.folder / "out"});
  EXPECT_EQ(verify.code, 3) << "a check that found a difference";
  EXPECT_THAT(verify.out, testing::AllOf(HasSubstr("model.norm.weight"), Not(HasSubstr("up_proj"))));
}

TEST(Merge, GivesTheSameBytesForAnyThreadsAndOthersForAnotherSeed) {
  const Models models;
  ASSERT_EQ(run_skein(models.merge("one", {"--threads", "1"})).code, 0);
  ASSERT_EQ(run_skein(models.merge("two", {"--threads", "3", "--memory", "100M"})).code, 0);
  ASSERT_EQ(run_skein(models.merge("other", {"--seed", "1"})).code, 0);
  EXPECT_TRUE(models.weights("one") == models.weights("two"));
  EXPECT_FALSE(models.weights("one") == models.weights("other")) << "dare_ties draws by the seed";
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose own memory is many times the program's
// One tensor of 64 MiB, written in pieces: what this process holds counts as its children's.
void write_wide_model(const std::string& folder, unsigned seed) {
  constexpr std::int64_t kRows = 1 << 15, kColumns = 1 << 10, kPieces = 64;
  std::filesystem::create_directories(folder);
  auto writer = or_throw(SafetensorsWriter::create(
      real_env(), folder + "/model.safetensors", {{"model.embed_tokens.weight", DType::kBF16, {kRows, kColumns}}}, {}));
  std::mt19937 random(seed);
  std::vector<float> values(kRows * kColumns / kPieces);
  for (auto& value : values) value = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31F;
  std::vector<std::byte> bytes(2 * values.size());
  convert_from_f32(values.data(), static_cast<std::int64_t>(values.size()), DType::kBF16, bytes.data());
  for (int piece = 0; piece < kPieces; ++piece) or_throw(writer->append(bytes));
  or_throw(writer->finish());
  write_file(folder + "/config.json", R"({"model_type": "llama"})");
}

TEST(Merge, KeepsWithinItsMemoryWithATensorThatIsLarger) {
  const TemporaryFolder folder;
  for (unsigned seed = 0; const char* name : {"base", "a", "b"}) write_wide_model(folder / name, ++seed);
  const std::string models = concat("models: [{model: ", folder / "a", ", parameters: {weight: 0.5, density: 0.4}}, ",
                                    "{model: ", folder / "b", ", parameters: {weight: 0.5, density: 0.4}}]\n");
  const std::int64_t idle_bytes = run_skein({"--version"}).peak_bytes;  // libtorch's own are twice the budget
  for (const std::string method : {"linear", "ties", "della"}) {
    write_file(folder / "recipe.yml",
               concat("merge_method: ", method, "\nbase_model: ", folder / "base", "\n", models));
    const Outcome outcome = run_skein({"merge", folder / "recipe.yml", folder / "out", "--memory", "60M", "--overwrite",
                                       "--threads", "2", "--progress", "none"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_LT(outcome.peak_bytes - idle_bytes, 60'000'000) << method;
  }
}
#endif

TEST(Merge, DryRunPrintsThePlanAndWritesNothing) {
  const Models models;
  const Outcome outcome = run_skein({"merge", models.recipe, "--dry-run"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::AllOf(HasSubstr("dare_ties"), HasSubstr("model.safetensors"), HasSubstr("memory")));
  EXPECT_THAT(names_in(models.folder.path()), ElementsAre("a", "b", "base", "recipe.yml"));
}

TEST(Merge, WritesStatisticsAndAPageThatNeedsNothingElse) {
  const Models models;
  ASSERT_EQ(run_skein(models.merge("out", {"--stats"})).code, 0);
  EXPECT_EQ(json_of(read_file(models.folder / "out/merge_stats.json"))["tensors"].size(), 6u);
  const std::string page = read_file(models.folder / "out/merge_stats.html");
  EXPECT_THAT(page, testing::AllOf(HasSubstr("model.layers.3.mlp.up_proj.weight"), Not(HasSubstr("SKEIN_MERGE_STATS")),
                                   Not(HasSubstr("http://")), Not(HasSubstr("https://"))));
}

TEST(Merge, NamesTheLineOfAMisspeltKeyAndTheKeyThatWasMeant) {
  const Models models;
  write_file(models.recipe, "merge_method: linear\nmodls:\n- model: x\n");
  const Outcome key = run_skein(models.merge("out"));
  EXPECT_EQ(key.code, 1);
  EXPECT_THAT(key.err, testing::AllOf(HasSubstr("recipe.yml, line 2"), HasSubstr("did you mean models?")));
  write_file(models.recipe, concat("merge_method: linear\nmodels:\n- model: ", models.folder / "a",
                                   "\n  parameters:\n    wieght: 1\n"));
  const Outcome parameter = run_skein(models.merge("out"));
  EXPECT_EQ(parameter.code, 1);
  EXPECT_THAT(parameter.err, testing::AllOf(HasSubstr("line 5"), HasSubstr("did you mean weight?")));
}

TEST(Merge, LeavesNothingBehindOnAFullDisk) {
  const Models models(4, 256);
  const Outcome outcome = run_skein(models.merge("out"), {.file_size_limit = 300 << 10});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("model.safetensors"));
  EXPECT_THAT(names_in(models.folder.path()), ElementsAre("a", "b", "base", "recipe.yml"));
}

TEST(Merge, FindsAHubIdInTheLocalCache) {
  const Models models;
  const std::string hub = models.folder / "hub/models--me--tune";
  std::filesystem::create_directories(hub + "/refs");
  std::filesystem::create_directories(hub + "/snapshots");
  write_file(hub + "/refs/main", "abc123\n");
  std::filesystem::rename(models.folder / "a", hub + "/snapshots/abc123");
  write_file(models.recipe, "merge_method: passthrough\nmodels:\n- model: me/tune\n");
  ASSERT_EQ(setenv("HF_HUB_CACHE", (models.folder / "hub").c_str(), 1), 0);
  const Outcome outcome = run_skein(models.merge("out"));
  ASSERT_EQ(unsetenv("HF_HUB_CACHE"), 0);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  write_file(models.recipe, "merge_method: passthrough\nmodels:\n- model: me/other\n");
  const Outcome absent = run_skein(models.merge("out3"));
  EXPECT_EQ(absent.code, 1);
  EXPECT_THAT(absent.err, testing::AllOf(HasSubstr("me/other"), HasSubstr("downloads nothing")));
}

// Kills merges at random moments, half of them between the opening of the output and the folder's last sync, and goes
// on with each. SKEIN_STORM: how many (200 in the nightly run).
TEST(Merge, KilledAtRandomMomentsAndResumedGivesTheBytesOfAnUnbrokenRun) {
  const char* storm = std::getenv("SKEIN_STORM");
  const int num_kills = storm == nullptr ? 8 : std::atoi(storm);
  const Models models(24, 512);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run_skein(models.merge("whole")).code, 0);
  const auto duration = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const std::string expected = models.weights("whole");
  std::mt19937 random(static_cast<unsigned>(num_kills));
  int num_killed = 0;
  for (int i = 0; i < num_kills; ++i) {
    std::filesystem::remove_all(models.folder / "out");
    std::filesystem::remove_all(models.folder / ".out.skein-unfinished");
    {
      RunningSkein running(models.merge("out", {"--journal-every", "1"}));
      if (i % 2 == 1) {
        while (running.is_running() && !exists(models.folder / ".out.skein-unfinished/model.safetensors")) usleep(100);
      }
      usleep(static_cast<useconds_t>(random() % static_cast<unsigned>(duration.count())));
      if (running.is_running()) {
        running.signal(SIGKILL);
        num_killed += running.wait().code == 128 + SIGKILL ? 1 : 0;
      }
    }
    if (exists(models.folder / "out")) {
      EXPECT_TRUE(models.weights("out") == expected) << "half an output under its final name";
    }
    const Outcome resumed = run_skein(models.merge("out", {"--resume"}));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    ASSERT_TRUE(models.weights("out") == expected) << "kill " << i;
    ASSERT_EQ(names_in(models.folder / "out"), names_in(models.folder / "whole"));
    EXPECT_FALSE(exists(models.folder / ".out.skein-unfinished"));
  }
  EXPECT_GT(num_killed, 0);
}

TEST(Merge, CtrlCPrintsTheCommandThatGoesOn) {
  const Models models(64, 768);
  Outcome stopped;
  {
    RunningSkein running(models.merge("out", {"--threads", "1"}));
    while (running.is_running() && !exists(models.folder / ".out.skein-unfinished/journal-0.jsonl")) usleep(100);
    running.signal(SIGINT);
    stopped = running.wait();
  }
  ASSERT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("--resume"));
  EXPECT_EQ(run_skein(models.merge("out", {"--resume"})).code, 0);
}

TEST(MergeBench, MeasuresMergesTheirLineAndCp) {
  const TemporaryFolder folder;
  const auto rows_of = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"bench", "merge",     "--shape", "tiny",  "--rounds",
                                   "1",     "--methods", "linear",  "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = run_skein(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json_of(outcome.out)["rows"];
  };
  const Json beside = rows_of({"--work", folder / "work", "--peer", "true"});  // a peer that does nothing
  EXPECT_GT(beside.at(0).at("skein s").get<double>(), 0);
  EXPECT_GT(beside.at(0).at("mergekit s").get<double>(), 0);
  EXPECT_TRUE(exists(folder / "work/tiny-tuned-3/model.safetensors")) << "made models are kept in a work folder";
  EXPECT_EQ(rows_of({"--work", folder / "work", "--line"}).size(), 11u) << "2 to 8 models, four sizes";
  EXPECT_GT(rows_of({"--against-cp", folder.path(), "--gigabytes", "0.1"}).at(0).at("ratio").get<double>(), 0);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("work")) << "the large files are removed";
}

#ifdef SKEIN_MPIRUN
TEST(Merge, GivesTheSameBytesOnAnyNumberOfRanks) {
  const Models models(5, 128);
  ASSERT_EQ(run_skein(models.merge("one")).code, 0);
  for (const int ranks : {2, 3}) {
    const std::string out = concat("ranks", ranks);
    std::string command = concat(SKEIN_MPIRUN, " --allow-run-as-root --oversubscribe -n ", ranks, " " SKEIN_PROGRAM);
    for (const auto& word : models.merge(out)) command += " " + word;
    ASSERT_EQ(std::system((command + " > /dev/null 2>&1").c_str()), 0) << command;
    EXPECT_TRUE(models.weights(out) == models.weights("one")) << ranks;
    EXPECT_EQ(run_skein({"merge", "--verify", models.folder / out}).code, 0);
  }
}

TEST(Merge, EndsOnAllRanksWhenOneFails) {
  const Models models(5, 128);
  std::filesystem::remove(models.folder / "b/model.safetensors");
  std::string command = concat("timeout 60 ", SKEIN_MPIRUN, " --allow-run-as-root --oversubscribe -n 2 " SKEIN_PROGRAM);
  for (const auto& word : models.merge("out")) command += " " + word;
  const int status = std::system((command + " > /dev/null 2>&1").c_str());
  EXPECT_NE(status, 0);
  EXPECT_NE(WEXITSTATUS(status), 124) << "a rank waited for ever";
  EXPECT_FALSE(exists(models.folder / "out"));
}
#endif

}  // namespace
}  // namespace skein
