// Bad input: a clear sentence, an exit code, nothing lost and nothing half-written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// One sentence on stderr with each of these words, the exit code, and `output` absent.
void expect_refused(const Outcome& outcome, int code, const std::vector<std::string>& words,
                    const std::string& output = "") {
  EXPECT_EQ(outcome.code, code) << outcome.err;
  for (const std::string& word : words) EXPECT_THAT(outcome.err, HasSubstr(word));
  EXPECT_THAT(outcome.err, testing::Not(testing::AnyOf(HasSubstr("terminate called"),
                                                       HasSubstr("Exception raised from"), HasSubstr("#0"))));
  EXPECT_TRUE(outcome.out.empty()) << outcome.out;
  EXPECT_TRUE(output.empty() || !exists(output)) << output << " is there";
}

struct Scene {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string data = letter_task(folder, "ab", "ab", 8);
  std::string out = folder / "out";

  Outcome logits(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"logits", "--base", base, "--input", "ab", "--out", out, "--dtype", "f32"};
    words.insert(words.end(), more.begin(), more.end());
    return run_skein(words);
  }
  Outcome train(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"train", "expert",  "--base", base,      "--data", data,      "--out",
                                      out,     "--steps", "2",      "--batch", "2",      "--dtype", "f32"};
    words.insert(words.end(), more.begin(), more.end());
    return run_skein(words);
  }
};

TEST(BadInput, ATruncatedModelFile) {
  const Scene scene;
  const std::string path = scene.base + "/model.safetensors", whole = read_file(path);
  write_file(path, whole.substr(0, whole.size() - 100));
  expect_refused(scene.logits(), 1, {"model.safetensors"}, scene.out);
  write_file(path, whole.substr(0, 5));
  expect_refused(scene.logits(), 1, {"model.safetensors"}, scene.out);
}

TEST(BadInput, AModelFileThatLiesAboutItsHeader) {
  const Scene scene;
  const std::string path = scene.base + "/model.safetensors";
  std::string bytes = read_file(path);
  const std::uint64_t huge = 1ULL << 40;
  std::memcpy(bytes.data(), &huge, 8);
  write_file(path, bytes);
  expect_refused(scene.logits(), 1, {"model.safetensors"}, scene.out);
}

TEST(BadInput, AModelWhoseConfigDoesNotFitItsTensors) {
  const Scene scene;
  std::string config = read_file(scene.base + "/config.json");
  config.replace(config.find("\"intermediate_size\": 72"), 23, "\"intermediate_size\": 80");
  write_file(scene.base + "/config.json", config);
  expect_refused(scene.logits(), 1, {"model.layers.0.mlp", "(80, 40)", "(72, 40)"}, scene.out);
}

TEST(BadInput, AnAdapterOfAnotherShape) {
  const Scene scene;
  const std::string t5_expert = SKEIN_SOURCE_DIR "/tests/golden/agreement/experts/t5_0";
  expect_refused(scene.logits({"--adapter", t5_expert}), 1, {"t5_0"}, scene.out);
}

TEST(BadInput, AnAdapterOfAnotherBaseNamesBothFingerprints) {
  const Scene scene;
  const std::string expert = tiny_expert(scene.folder, scene.base, scene.data, "expert");
  const std::string trained_on = json_of(read_file(expert + "/card.json"))["base_fingerprint"];
  poke_f32(scene.base + "/model.safetensors", "model.norm.weight", 3, 1.5F);
  expect_refused(scene.logits({"--adapter", expert}), 1, {trained_on, "--allow-other-base"}, scene.out);
  EXPECT_EQ(scene.logits({"--adapter", expert, "--allow-other-base"}).code, 0);
}

TEST(BadInput, NotANumberInAnAdapter) {
  const Scene scene;
  const std::string expert = tiny_expert(scene.folder, scene.base, scene.data, "expert");
  poke_f32(expert + "/adapter_model.safetensors", "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 3,
           std::numeric_limits<float>::quiet_NaN());
  expect_refused(scene.logits({"--adapter", expert}), 1, {"adapter_model.safetensors", "layers.1.self_attn.q_proj"},
                 scene.out);
}

TEST(BadInput, NotANumberInTheBaseStopsTrainingAndScoring) {
  const Scene scene;
  poke_f32(scene.base + "/model.safetensors", "model.layers.0.mlp.up_proj.weight", 7,
           std::numeric_limits<float>::quiet_NaN());
  expect_refused(scene.train(), 1, {"loss of NaN", "ab.jsonl"}, scene.out);
  expect_refused(run_skein({"eval", "--base", scene.base, "--tasks", scene.data, "--out", scene.out, "--dtype", "f32"}),
                 1, {"NaN"}, scene.out);
}

TEST(BadInput, ADataLineWithoutTarget) {
  const Scene scene;
  write_file(scene.data, read_file(scene.data) + "{\"input\": \"a\"}\n");
  expect_refused(scene.train(), 1, {"ab.jsonl", "9", "target"}, scene.out);
  expect_refused(run_skein({"eval", "--base", scene.base, "--tasks", scene.data, "--out", scene.out}), 1,
                 {"ab.jsonl", "9", "target"}, scene.out);
}

TEST(BadInput, AnEmptyDataFile) {
  const Scene scene;
  write_file(scene.data, "");
  expect_refused(scene.train(), 1, {"ab.jsonl"}, scene.out);
  write_file(scene.data, "\n\n");
  expect_refused(scene.train(), 1, {"ab.jsonl"}, scene.out);
}

TEST(BadInput, APromptLongerThanTheContext) {
  const Scene scene;
  const std::string prompt(65, 'a');  // the tiny base reads 64
  expect_refused(run_skein({"generate", "--base", scene.base, "--prompt", prompt}), 1, {"65", "64"});
  expect_refused(run_skein({"logits", "--base", scene.base, "--input", prompt, "--out", scene.out}), 1, {"65", "64"},
                 scene.out);
}

TEST(BadInput, NoPromptAndAnEmptyOne) {
  const Scene scene;
  expect_refused(run_skein({"generate", "--base", scene.base}), 2, {"--prompt"});
  write_file(scene.folder / "empty.txt", "");
  expect_refused(run_skein({"generate", "--base", scene.base, "--prompt-file", scene.folder / "empty.txt"}), 2,
                 {"empty.txt"});
}

TEST(BadInput, AnUnknownModule) {
  const Scene scene;
  expect_refused(scene.train({"--target-modules", "q_proj,flux_proj"}), 2, {"flux_proj"}, scene.out);
}

TEST(BadInput, APickleWhereSafetensorsBelong) {
  const Scene scene;
  const std::string expert = tiny_expert(scene.folder, scene.base, scene.data, "expert");
  const std::string pickle = read_file(SKEIN_SOURCE_DIR "/tests/golden/torch/state_dict.pt");
  ASSERT_FALSE(pickle.empty());
  write_file(expert + "/adapter_model.safetensors", pickle);
  expect_refused(scene.logits({"--adapter", expert}), 1, {"adapter_model.safetensors", "pickle"}, scene.out);
  std::filesystem::rename(expert + "/adapter_model.safetensors", expert + "/adapter_model.bin");
  expect_refused(scene.logits({"--adapter", expert}), 1, {"adapter_model.bin", "pickle", "safe_serialization"},
                 scene.out);
}

TEST(BadInput, AFullDisk) {
  const Scene scene;
  std::filesystem::create_directory(scene.folder / "disk");
  const RunOptions full{.file_size_limit = 4096};
  const std::string out = scene.folder / "disk/out";
  expect_refused(
      run_skein({"logits", "--base", scene.base, "--input", "a long enough text to fill it", "--out", out}, full), 1,
      {"out"}, out);
  EXPECT_THAT(names_in(scene.folder / "disk"), ElementsAre()) << "a temporary file was left behind";
  expect_refused(run_skein({"train", "expert", "--base", scene.base, "--data", scene.data, "--out", out, "--steps", "2",
                            "--batch", "2"},
                           full),
                 1, {scene.folder / "disk"}, out);
}

TEST(BadInput, AnUnknownExpertAndTooManyExpertsPerToken) {
  const Scene scene;
  const std::string pool = scene.folder / "pool", expert = tiny_expert(scene.folder, scene.base, scene.data, "expert");
  ASSERT_EQ(run_skein({"library", "create", pool, "--base", scene.base}).code, 0);
  ASSERT_EQ(run_skein({"library", "add", pool, expert}).code, 0);
  expect_refused(scene.logits({"--library", pool, "--router", "single", "--expert", "exprt"}), 2, {"exprt"}, scene.out);
  expect_refused(scene.logits({"--library", pool, "--top-k", "3"}), 2, {"3"}, scene.out);
}

TEST(BadInput, ADeviceThatIsNotThere) {
  const Scene scene;
  expect_refused(scene.logits({"--device", "tpu"}), 2, {"tpu"}, scene.out);
  expect_refused(scene.logits({"--device", "cuda:99"}), 2, {"cuda:99"}, scene.out);
}

}  // namespace
}  // namespace skein
