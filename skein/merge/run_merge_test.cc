#include "skein/merge/run_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "skein/io/fault_env.h"
#include "skein/io/output_folder.h"
#include "skein/merge/journal.h"
#include "skein/merge/manifest.h"
#include "skein/merge/test_models.h"

namespace skein::merge {
namespace {

using ::testing::HasSubstr;
using testing::read_tensor;
using testing::test_tensors;
using testing::test_values;
using testing::write_model;

// Two tunes of one base in memory, and a recipe for them.
class RunMergeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_model(*env_, "base", 1, test_tensors());
    write_model(*env_, "a", 2, test_tensors());
    write_model(*env_, "b", 3, test_tensors());
    recipe(R"(merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: 0.7, density: 0.5}
  - model: b
    parameters: {weight: 0.4, density: 0.3}
)");
  }

  void recipe(const std::string& text) { or_throw(write_text_atomically(*env_, "recipe.yml", text)); }

  static MergeRequest request() {
    MergeRequest request;
    request.recipe_path = "recipe.yml";
    request.out = "out";
    request.version = "test";
    request.journal_every = std::chrono::milliseconds(0);  // as often as can be
    return request;
  }

  // skein merge, with whatever changes.
  Result<MergeSummary> merge(Env& env, const std::function<void(MergeRequest&)>& change = {}) {
    MergeRequest own = request();
    if (change) change(own);
    const auto comm = make_single_comm();
    return run_merge(env, *comm, own);
  }

  // All files of a folder by name.
  std::map<std::string, std::string> content(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& name : or_throw(env_->list(folder))) {
      files[name] = or_throw(read_text_file(*env_, join_path(folder, name)));
    }
    return files;
  }

  // Names first: the bytes of a difference would be pages.
  void expect_content(const std::map<std::string, std::string>& expected, const std::string& when) {
    const auto found = content("out");
    for (const auto& [name, bytes] : expected) {
      ASSERT_TRUE(found.contains(name)) << name << " is missing " << when;
      ASSERT_TRUE(found.at(name) == bytes) << name << " differs " << when;
    }
    ASSERT_EQ(found.size(), expected.size()) << "more files than expected " << when;
  }

  std::unique_ptr<Env> env_ = make_memory_env();
};

TEST_F(RunMergeTest, WritesAFolderThatHoldsTheMergeItsConfigAndItsManifest) {
  recipe(
      "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 3}}\n");
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  EXPECT_EQ(summary->num_tensors, 9u);
  const auto names = or_throw(env_->list("out"));
  EXPECT_THAT(names, ::testing::IsSupersetOf({"config.json", "model.safetensors", "skein_merge.json", "README.md"}));
  EXPECT_FALSE(env_->exists(unfinished_path("out")));
  const testing::TestTensor tensor{"model.layers.1.mlp.up_proj.weight", {16, 8}};
  const auto merged = read_tensor(*env_, "out", tensor.name), a = test_values(2, tensor), b = test_values(3, tensor);
  for (std::size_t i = 0; i < merged.size(); ++i) {
    const auto rounded = [](float value) { return bf16_to_f32(f32_to_bf16(value)); };
    const float exact = (rounded(a[i]) + 3 * rounded(b[i])) / 4;
    EXPECT_NEAR(merged[i], exact, std::abs(exact) / 256) << "bf16 keeps 8 bits";
  }
}

TEST_F(RunMergeTest, GivesTheSameBytesForAnyThreadsMemoryAndShardsOfTheInputs) {
  std::vector<testing::TestTensor> tensors = test_tensors(2, 96);  // rows of several blocks
  tensors.push_back({"model.layers.0.mlp.wide.weight", {1000, 300}});
  write_model(*env_, "base", 1, tensors);
  write_model(*env_, "a", 2, tensors);
  write_model(*env_, "b", 3, tensors);
  ASSERT_TRUE(merge(*env_).ok());
  const std::string expected = content("out")["model.safetensors"];
  for (const int threads : {2, 5}) {
    or_throw(env_->remove_tree("out"));
    ASSERT_TRUE(merge(*env_, [&](auto& own) { own.num_threads = threads; }).ok());
    EXPECT_TRUE(content("out")["model.safetensors"] == expected) << threads;
  }
  or_throw(env_->remove_tree("out"));
  ASSERT_TRUE(merge(*env_, [](auto& own) {
                own.memory_bytes = 50'000'000;
                own.num_threads = 4;
              }).ok());
  EXPECT_TRUE(content("out")["model.safetensors"] == expected);
  for (const char* model : {"base", "a", "b"}) or_throw(env_->remove_tree(model));
  testing::write_sharded_model(*env_, "base", 1, tensors);
  testing::write_sharded_model(*env_, "a", 2, tensors);
  testing::write_sharded_model(*env_, "b", 3, tensors);
  or_throw(env_->remove_tree("out"));
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_TRUE(content("out")["model.safetensors"] == expected);
}

// Two f64 numbers that f32 cannot hold, and a tensor of several blocks.
void write_wide_model(Env& env, const std::string& folder, double factor) {
  or_throw(env.make_folders(folder));
  std::vector<double> fine{0.1 * factor, 1e300}, many(70'000);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = factor * std::sin(static_cast<double>(i));
  or_throw(write_safetensors(env, join_path(folder, "model.safetensors"),
                             {{"fine", TensorView{DType::kF64, {2}, std::as_bytes(std::span(fine))}},
                              {"many", TensorView{DType::kF64, {700, 100}, std::as_bytes(std::span(many))}}}));
  or_throw(write_text_atomically(env, join_path(folder, "config.json"), R"({"model_type": "llama"})"));
}

std::vector<double> read_wide(Env& env, const std::string& folder, const std::string& name) {
  const auto weights = or_throw(open_safetensors_folder(env, folder));
  const TensorInfo* info = weights->find(name);
  EXPECT_EQ(info->dtype, DType::kF64);
  std::vector<double> values(static_cast<std::size_t>(checked_numel(info->shape).value()));
  or_throw(weights->read(name, DType::kF64, std::as_writable_bytes(std::span(values))));
  return values;
}

TEST_F(RunMergeTest, AnF64OutputHoldsTheF32ResultsWidened) {
  const std::string text = R"(merge_method: ties
base_model: base
models: [{model: a, parameters: {weight: 0.7, density: 0.5}}, {model: b, parameters: {weight: 0.4}}]
out_dtype: )";
  std::vector<testing::TestTensor> tensors = test_tensors();
  tensors.push_back({"model.layers.0.mlp.wide.weight", {700, 100}});
  write_model(*env_, "base", 1, tensors);
  write_model(*env_, "a", 2, tensors);
  write_model(*env_, "b", 3, tensors);
  recipe(text + "float32\n");
  ASSERT_TRUE(merge(*env_).ok());
  std::map<std::string, std::vector<float>> narrow;
  for (const auto& tensor : tensors) narrow[tensor.name] = read_tensor(*env_, "out", tensor.name);
  recipe(text + "float64\n");
  or_throw(env_->remove_tree("out"));
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  for (const auto& [name, values] : narrow) {
    EXPECT_EQ(read_wide(*env_, "out", name), std::vector<double>(values.begin(), values.end())) << name;
  }
  EXPECT_EQ(or_throw(read_json_file(*env_, "out/config.json"))["torch_dtype"], "float64");
  EXPECT_TRUE(or_throw(verify_output(*env_, "out")).differences.empty());
}

TEST_F(RunMergeTest, CopiesOfF64TensorsLoseNothingUnlessTheRecipeNarrowsThem) {
  write_wide_model(*env_, "wide", 1);
  const std::vector<double> fine{0.1, 1e300};
  for (const char* types : {"", "dtype: float64\n", "out_dtype: float64\n"}) {
    recipe(concat("merge_method: passthrough\nmodels: [{model: wide}]\n", types));
    ASSERT_TRUE(merge(*env_).ok());
    EXPECT_EQ(read_wide(*env_, "out", "fine"), fine) << types;
    or_throw(env_->remove_tree("out"));
  }
  recipe("merge_method: passthrough\nmodels: [{model: wide}]\ndtype: bfloat16\nout_dtype: float64\n");
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  EXPECT_EQ(read_wide(*env_, "out", "fine")[0], bf16_to_f32(f32_to_bf16(0.1F)));
  EXPECT_EQ(summary->num_nonfinite, 1u) << "1e300 is infinite in every narrower type, and in f64 when it was read so";
}

TEST_F(RunMergeTest, F64InputsAreSummedInF32) {
  write_wide_model(*env_, "one", 1);
  write_wide_model(*env_, "two", 3);
  recipe(
      "merge_method: linear\nmodels: [{model: one, parameters: {weight: 1}}, {model: two, parameters: {weight: 1}}]\n"
      "dtype: float64\n");
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_EQ(read_wide(*env_, "out", "fine")[0], (0.1F + static_cast<float>(0.1 * 3)) / 2);
  const auto many = read_wide(*env_, "out", "many");
  for (const std::size_t i : {0, 1, 65'535, 65'536, 69'999}) {
    const float one = static_cast<float>(std::sin(static_cast<double>(i)));
    EXPECT_EQ(many[i], (one + static_cast<float>(3 * std::sin(static_cast<double>(i)))) / 2) << i;
  }
}

TEST_F(RunMergeTest, SplitsTheOutputOverFilesWithAnIndex) {
  ASSERT_TRUE(merge(*env_, [](auto& own) { own.shard_bytes = 400; }).ok());
  const Json index = or_throw(read_json_file(*env_, "out/model.safetensors.index.json"));
  EXPECT_EQ(index["weight_map"].size(), 9u);
  EXPECT_THAT(index["weight_map"]["lm_head.weight"].get<std::string>(), HasSubstr("model-00001-of-0000"));
  const auto whole = read_tensor(*env_, "out", "model.norm.weight");
  or_throw(env_->remove_tree("out"));
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_EQ(read_tensor(*env_, "out", "model.norm.weight"), whole);
}

TEST_F(RunMergeTest, WhereverItCrashesResumingGivesTheBytesOfAnUnbrokenRun) {
  ASSERT_TRUE(merge(*env_).ok());
  const auto expected = content("out");
  or_throw(env_->remove_tree("out"));
  const auto fault = make_fault_env(*env_);
  ASSERT_TRUE(merge(*fault).ok());
  const std::int64_t operations = fault->operations();
  ASSERT_GT(operations, 30);
  int num_resumed = 0;
  for (std::int64_t n = 0; n < operations; ++n) {
    for (const bool power_cut : {false, true}) {
      or_throw(fault->remove_tree("out"));
      or_throw(fault->remove_tree(unfinished_path("out")));
      fault->set_plan({.fail_at_operation = n});
      (void)merge(*fault);
      fault->set_plan({});
      if (power_cut) or_throw(fault->lose_unsynced());
      // Half an output never stands under the final name. (The last step, the old folder's sync, comes after it.)
      if (env_->exists("out")) expect_content(expected, concat("under the final name after operation ", n));
      const auto resumed = merge(*fault, [](auto& own) { own.resume = true; });
      ASSERT_TRUE(resumed.ok()) << "after operation " << n << ": " << resumed.error().message;
      num_resumed += resumed->num_resumed > 0 ? 1 : 0;
      expect_content(expected, concat("after operation ", n, power_cut ? " and a power cut" : ""));
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(num_resumed, 0) << "no run took anything over: the journal was of no use";
}

TEST_F(RunMergeTest, OnADiskThatFillsUpAtAnyByteLeavesNothingUnderTheFinalNameAndCanGoOn) {
  ASSERT_TRUE(merge(*env_).ok());
  const auto expected = content("out");
  or_throw(env_->remove_tree("out"));
  const auto fault = make_fault_env(*env_);
  bool fits = false;
  for (std::int64_t budget = 0; !fits; budget += 97) {
    fault->set_plan({.write_budget_bytes = budget});
    const auto full = merge(*fault);
    fits = full.ok();
    if (!fits) {
      EXPECT_THAT(full.error().message, HasSubstr("disk is full")) << budget;
      EXPECT_FALSE(env_->exists("out")) << budget;
      fault->set_plan({});
      const auto resumed = merge(*fault, [](auto& own) { own.resume = true; });
      ASSERT_TRUE(resumed.ok()) << resumed.error().message;
    }
    expect_content(expected, concat("with room for ", budget, " bytes"));
    if (HasFatalFailure()) return;
    or_throw(env_->remove_tree("out"));
  }
}

TEST_F(RunMergeTest, SaysWhichInputIsShort) {
  const auto fault = make_fault_env(*env_);
  fault->set_plan({.short_reads = true});
  const auto merged = merge(*fault);
  EXPECT_FALSE(merged.ok());
  EXPECT_FALSE(env_->exists("out"));
}

TEST_F(RunMergeTest, RefusesToGoOnWithAnInputThatChanged) {
  const auto fault = make_fault_env(*env_);
  // The first crash behind a journal.
  for (std::int64_t n = 0; !has_journal(*env_, unfinished_path("out")); ++n) {
    fault->set_plan({.fail_at_operation = n});
    ASSERT_FALSE(merge(*fault).ok());
  }
  const auto without = merge(*env_);
  ASSERT_FALSE(without.ok());
  EXPECT_THAT(without.error().message, HasSubstr("--resume"));
  write_model(*env_, "b", 4, test_tensors());  // same size, same header, other bytes
  const auto resumed = merge(*env_, [](auto& own) { own.resume = true; });
  ASSERT_FALSE(resumed.ok());
  EXPECT_THAT(resumed.error().message, HasSubstr("b/model.safetensors"));
  EXPECT_TRUE(merge(*env_, [](auto& own) { own.overwrite = true; }).ok());
}

// An Env in which another process writes to an input while the merge runs.
TEST_F(RunMergeTest, RefusesInputsThatChangeWhileItRuns) {
  const auto merged = merge(*env_, [&](auto& own) {
    own.on_progress = [&](std::uint64_t, std::uint64_t) { write_model(*env_, "a", 9, test_tensors()); };
  });
  ASSERT_FALSE(merged.ok());
  EXPECT_THAT(merged.error().message, ::testing::AllOf(HasSubstr("a/model.safetensors"), HasSubstr("not the file")));
  EXPECT_FALSE(env_->exists("out"));
}

TEST_F(RunMergeTest, VerifyNamesTheTensorThatDiffersAndTheFileThatIsGone) {
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_TRUE(or_throw(verify_output(*env_, "out")).differences.empty());
  std::string bytes = or_throw(read_text_file(*env_, "out/model.safetensors"));
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  or_throw(write_text_atomically(*env_, "out/model.safetensors", bytes));
  or_throw(env_->remove_file("out/config.json"));
  const auto differences = or_throw(verify_output(*env_, "out")).differences;
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_THAT(differences[0], HasSubstr("tensor model.norm.weight holds other bytes"));
  EXPECT_THAT(differences[1], HasSubstr("file config.json"));
}

// Every byte of a manifest damaged in turn: an error, a difference, or a byte that nothing depends on.
TEST_F(RunMergeTest, VerifyEndsInAnErrorOrAReportWhateverByteOfTheManifestIsDamaged) {
  ASSERT_TRUE(merge(*env_).ok());
  const std::string path = join_path("out", kManifestName);
  const std::string whole = or_throw(read_text_file(*env_, path));
  std::size_t num_noticed = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (i % 2 == 0 ? 1 : 0x80));
    or_throw(write_text_atomically(*env_, path, damaged));
    const auto report = verify_output(*env_, "out");
    num_noticed += report.ok() && report->differences.empty() ? 0 : 1;
  }
  EXPECT_GT(num_noticed, whole.size() / 2) << "bytes above 127 alone spoil the UTF-8 of every second";
}

// A journal is believed where the bytes have its digests: damage of it costs work, never bytes.
TEST_F(RunMergeTest, WhateverByteOfAJournalIsDamagedResumingGivesTheRightBytesOrAnError) {
  ASSERT_TRUE(merge(*env_).ok());
  const auto expected = content("out");
  or_throw(env_->remove_tree("out"));
  const auto fault = make_fault_env(*env_);
  const std::string journal = join_path(unfinished_path("out"), "journal-0.jsonl");
  const auto num_lines = [&] {
    const auto text = read_text_file(*env_, journal);
    return text.ok() ? std::count(text->begin(), text->end(), '\n') : 0;
  };
  for (std::int64_t n = 0; num_lines() < 4; ++n) {
    or_throw(env_->remove_tree(unfinished_path("out")));
    fault->set_plan({.fail_at_operation = n});
    ASSERT_FALSE(merge(*fault).ok()) << "no run left a journal of three tensors";
  }
  const auto left = content(unfinished_path("out"));
  const std::string whole = left.at("journal-0.jsonl");
  int num_refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const auto& [name, bytes] : left) {
      or_throw(env_->make_folders(unfinished_path("out")));
      or_throw(write_text_atomically(*env_, join_path(unfinished_path("out"), name), bytes));
    }
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    or_throw(write_text_atomically(*env_, journal, damaged));
    const auto resumed = merge(*env_, [](auto& own) { own.resume = true; });
    num_refused += resumed.ok() ? 0 : 1;
    if (resumed.ok()) {
      expect_content(expected, concat("with byte ", i, " of the journal damaged"));
      if (HasFatalFailure()) return;
    }
    or_throw(env_->remove_tree("out"));
  }
  EXPECT_GT(num_refused, 0);
}

TEST_F(RunMergeTest, CountsWhatIsNotFinite) {
  auto tensors = test_tensors();
  std::vector<NamedTensor> named;
  std::vector<std::vector<std::byte>> kept;
  kept.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    auto values = test_values(2, tensor);
    if (tensor.name == "model.norm.weight") values[3] = std::numeric_limits<float>::infinity();
    kept.push_back(testing::bytes_of(values, tensor.dtype));
    named.push_back({tensor.name, TensorView{tensor.dtype, tensor.shape, kept.back()}});
  }
  or_throw(write_safetensors(*env_, "a/model.safetensors", named));
  recipe(
      "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 1}}\n");
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->num_nonfinite, 1u);
  EXPECT_THAT(summary->nonfinite_tensors, ::testing::ElementsAre("model.norm.weight"));
}

TEST_F(RunMergeTest, EvaluatesStagesInTheOrderTheyNeedEachOther) {
  recipe(R"(merge_method: linear
models:
- {model: half, parameters: {weight: 1}}
- {model: b, parameters: {weight: 1}}
---
name: half
merge_method: linear
models:
- {model: a, parameters: {weight: 1}}
- {model: b, parameters: {weight: 1}}
)");
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  const testing::TestTensor tensor{"model.norm.weight", {8}};
  const auto merged = read_tensor(*env_, "out", tensor.name), a = test_values(2, tensor), b = test_values(3, tensor);
  for (std::size_t i = 0; i < merged.size(); ++i) {
    EXPECT_NEAR(merged[i], 0.25F * a[i] + 0.75F * b[i], 0.02F) << "three roundings to bf16 of numbers below 1";
  }
  for (const auto& name : or_throw(env_->list("."))) EXPECT_THAT(name, ::testing::Not(HasSubstr("stages")));
}

TEST_F(RunMergeTest, ADryRunPlansStagesOnWhatEarlierOnesWouldGive) {
  recipe(R"(name: tall
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [0, 2]}]
---
name: taller
merge_method: passthrough
slices:
- sources: [{model: tall, layer_range: [0, 4]}]
- sources: [{model: tall, layer_range: [2, 3]}]
---
merge_method: linear
models: [{model: taller, parameters: {weight: 1}}]
)");
  const auto planned = dry_run(*env_, request());
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  const Json& stages = planned->json["stages"];
  ASSERT_EQ(stages.size(), 3u);
  EXPECT_EQ(stages[0]["stage"], "tall");
  const auto before = or_throw(env_->list("."));
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_THAT(before, ::testing::Not(::testing::Contains("out"))) << "a dry run writes nothing";
  // The plan of the last stage, made without the others' bytes, is what comes out.
  const auto weights = or_throw(open_safetensors_folder(*env_, "out"));
  ASSERT_EQ(stages[2]["tensors"].size(), weights->tensors().size());
  EXPECT_EQ(weights->tensors().size(), 3u + 5u * 3u) << "five layers of three tensors";
  EXPECT_EQ(stages[2]["write_bytes"], stages[2]["read_bytes"]) << "one model in, one out, of the same type";
}

TEST_F(RunMergeTest, AStageLeftByAKilledRunIsGoneOnWithOrMakesWay) {
  const std::string staged = R"(name: half
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
---
merge_method: linear
models: [{model: half, parameters: {weight: 1}}, {model: WHICH, parameters: {weight: 1}}]
)";
  const auto with = [&](const std::string& model) {
    std::string text = staged;
    recipe(text.replace(text.find("WHICH"), 5, model));
  };
  with("b");
  ASSERT_TRUE(merge(*env_).ok());
  const auto expected = content("out");
  or_throw(env_->remove_tree("out"));
  with("nowhere");
  ASSERT_FALSE(merge(*env_).ok());
  EXPECT_FALSE(env_->exists(".out.skein-stages")) << "an input that is missing is told before the first stage";
  write_model(*env_, "deep", 4, test_tensors(3));
  with("deep");  // the last stage fails: the first is there
  ASSERT_FALSE(merge(*env_).ok());
  const std::string stage = ".out.skein-stages/half/model.safetensors";
  const auto made_at = or_throw(env_->facts(stage)).inode;
  ASSERT_FALSE(merge(*env_).ok());
  EXPECT_EQ(or_throw(env_->facts(stage)).inode, made_at) << "a finished stage is not made again";
  // Another recipe with a stage of that name.
  std::string other = staged;
  recipe(other.replace(other.find("weight: 1"), 9, "weight: 3").replace(other.find("WHICH"), 5, "b"));
  const auto merged = merge(*env_);
  ASSERT_TRUE(merged.ok()) << merged.error().message;
  EXPECT_NE(content("out")["model.safetensors"], expected.at("model.safetensors"));
  EXPECT_FALSE(env_->exists(".out.skein-stages"));
}

TEST_F(RunMergeTest, AFinishedResultOfStagesIsKnownWithoutItsStages) {
  const std::string staged = R"(name: half
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
---
merge_method: linear
models: [{model: half, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
)";
  recipe(staged);
  ASSERT_TRUE(merge(*env_).ok());
  EXPECT_TRUE(or_throw(verify_output(*env_, "out")).differences.empty());
  const auto fault = make_fault_env(*env_);
  const auto resume = [&](const std::function<void(MergeRequest&)>& change = {}) {
    const auto before = fault->operations();
    const auto summary = merge(*fault, [&](auto& own) {
      own.resume = true;
      if (change) change(own);
    });
    EXPECT_LE(fault->operations() - before, 1) << "nothing is written; what is left of stages is removed";
    EXPECT_THAT(summary.ok() ? "--overwrite" : summary.error().message, HasSubstr("--overwrite"));
    return summary.ok() && summary->was_complete;
  };
  EXPECT_TRUE(resume());
  EXPECT_FALSE(resume([](auto& own) { own.shard_bytes = 400; })) << "other options";
  recipe(std::string(staged).replace(staged.find("weight: 1"), 9, "weight: 3"));
  EXPECT_FALSE(resume()) << "another recipe";
  recipe(staged);
  EXPECT_TRUE(resume());
  write_model(*env_, "a", 2, test_tensors(2, 16));
  EXPECT_FALSE(resume()) << "other inputs";
}

TEST_F(RunMergeTest, NumbersTheLayersOfStackedSlicesAnew) {
  recipe(R"(merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [1, 2]}]
)");
  const auto summary = merge(*env_);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  const std::string q = "self_attn.q_proj.weight";
  EXPECT_EQ(read_tensor(*env_, "out", "model.layers.2." + q), read_tensor(*env_, "b", "model.layers.1." + q));
  EXPECT_EQ(read_tensor(*env_, "out", "model.layers.1." + q), read_tensor(*env_, "a", "model.layers.1." + q));
  EXPECT_EQ(read_tensor(*env_, "out", "model.embed_tokens.weight"),
            read_tensor(*env_, "a", "model.embed_tokens.weight"));
  EXPECT_EQ(read_tensor(*env_, "out", "lm_head.weight"), read_tensor(*env_, "b", "lm_head.weight"));
  EXPECT_EQ(or_throw(read_json_file(*env_, "out/config.json"))["num_hidden_layers"], 3);
  const Json manifest = or_throw(read_json_file(*env_, "out/skein_merge.json"));
  EXPECT_EQ(manifest["dropped"].size(), 3u + 3u) << "b's layer 0, its embedding; a's norm and head";
}

TEST_F(RunMergeTest, RefusesLessMemoryThanItNeedsAndSaysHowMuchThatIs) {
  const auto merged = merge(*env_, [](auto& own) { own.memory_bytes = 1'000'000; });
  ASSERT_FALSE(merged.ok());
  EXPECT_THAT(merged.error().message, HasSubstr("needs at least --memory"));
}

}  // namespace
}  // namespace skein::merge
