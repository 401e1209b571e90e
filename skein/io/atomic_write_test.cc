// Files and folders that appear complete or not at all, with the system failing at every single step.
#include <unistd.h>

#include <algorithm>
#include <functional>

#include <gmock/gmock.h>

#include "skein/io/fault_env.h"
#include "skein/io/output_folder.h"
#include "skein/io/safetensors.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::put_file;

const std::string kOld = "old content", kNew = "new content, a little longer";

// Runs `write` once whole to count its operations, then on fresh files with a crash at each operation in turn, with and
// without a power cut after it. `prepare` sets the scene; `check(env, crashed)` looks at what is left.
void crash_everywhere(FaultPlan plan, const std::function<void(Env&)>& prepare,
                      const std::function<Status(Env&)>& write, const std::function<void(Env&, bool wrote)>& check) {
  std::int64_t operations = 1;
  for (std::int64_t crash_at = -1; crash_at < operations; ++crash_at) {
    for (const bool power_cut : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "crash at operation " << crash_at << (power_cut ? ", power cut" : ""));
      const auto memory = make_memory_env();
      prepare(*memory);
      const auto env = make_fault_env(*memory);
      plan.fail_at_operation = crash_at;
      env->set_plan(plan);
      const bool wrote = write(*env).ok();
      if (crash_at < 0) {
        operations = env->operations();
        EXPECT_GT(operations, 3);
      }
      EXPECT_EQ(wrote, crash_at < 0);
      if (power_cut) or_throw(env->lose_unsynced());
      check(*memory, wrote);
    }
  }
}

std::string content(Env& env, const std::string& path) {
  return env.exists(path) ? or_throw(read_text_file(env, path)) : "";
}

TEST(WriteFileAtomically, LeavesTheOldOrTheNewFileWhereverItCrashes) {
  int old_seen = 0, new_seen = 0;
  crash_everywhere(
      {}, [](Env& env) { put_file(env, "f", kOld); }, [](Env& env) { return write_text_atomically(env, "f", kNew); },
      [&](Env& env, bool wrote) {
        const std::string found = content(env, "f");
        EXPECT_TRUE(found == kNew || (!wrote && found == kOld)) << found;
        (found == kNew ? new_seen : old_seen)++;
        // The next run cleans up what this one left.
        or_throw(write_text_atomically(env, "f", kNew));
        EXPECT_THAT(or_throw(env.list(".")), ElementsAre("f"));
      });
  EXPECT_GT(old_seen, 2);
  EXPECT_GT(new_seen, 2);  // a whole run, and a crash after the rename
}

TEST(WriteFileAtomically, OnAFullDiskSaysSoAndKeepsTheOldFile) {
  const auto memory = make_memory_env();
  put_file(*memory, "f", kOld);
  const auto env = make_fault_env(*memory);
  for (std::int64_t budget = 0; budget < static_cast<std::int64_t>(kNew.size()); ++budget) {
    env->set_plan({.write_budget_bytes = budget});
    expect_error(write_text_atomically(*env, "f", kNew), "the disk is full");
    EXPECT_EQ(content(*memory, "f"), kOld);
    EXPECT_THAT(or_throw(memory->list(".")), ElementsAre("f"));  // the half-written bytes are gone
  }
}

TEST(WriteFileAtomically, LeavesALivingProcesssTemporaryAlone) {
  const auto env = make_memory_env();
  put_file(*env, ".f.skein-tmp-1-1", "of process 1, which always lives");
  put_file(*env, ".f.skein-tmp-999999999-1", "of a process that cannot exist");
  put_file(*env, ".f.skein-tmp-mine", "the user's");
  or_throw(write_text_atomically(*env, "f", kNew));
  EXPECT_THAT(or_throw(env->list(".")), ElementsAre(".f.skein-tmp-1-1", ".f.skein-tmp-mine", "f"));
}

TEST(SafetensorsWriter, LeavesTheOldOrTheNewFileWhereverItCrashes) {
  const float values[4] = {1, 2, 3, 4};
  const NamedTensor tensor{"w", {DType::kF32, {2, 2}, std::as_bytes(std::span(values))}};
  crash_everywhere(
      {}, [](Env& env) { put_file(env, "m.safetensors", kOld); },
      [&](Env& env) { return write_safetensors(env, "m.safetensors", {tensor}); },
      [&](Env& env, bool wrote) {
        if (content(env, "m.safetensors") == kOld) {
          EXPECT_FALSE(wrote);
          return;
        }
        const auto read = open_safetensors(env, "m.safetensors");
        ASSERT_TRUE(read.ok()) << read.error().message;
        EXPECT_EQ((*read)->tensors().size(), 1u);
      });
}

TEST(SafetensorsWriter, OnAFullDiskSaysSoAndLeavesNothing) {
  const float values[4] = {1, 2, 3, 4};
  const NamedTensor tensor{"w", {DType::kF32, {2, 2}, std::as_bytes(std::span(values))}};
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  env->set_plan({.write_budget_bytes = 75});
  expect_error(write_safetensors(*env, "m.safetensors", {tensor}), "the disk is full");
  EXPECT_TRUE(or_throw(memory->list(".")).empty());
}

// A folder of two files, one in a folder of its own; the second is never synced by its writer.
Status write_folder(Env& env, const std::string& target, bool overwrite) {
  SKEIN_ASSIGN(const auto output, OutputFolder::begin(env, target, overwrite));
  SKEIN_TRY(write_text_atomically(env, join_path(output->path(), "a"), kNew));
  SKEIN_TRY(env.make_folders(join_path(output->path(), "in")));
  {
    SKEIN_ASSIGN(const auto file, env.create(join_path(output->path(), "in/b")));
    SKEIN_TRY(file->append(std::as_bytes(std::span(kNew))));
    SKEIN_TRY(file->close());
  }
  return output->commit();
}

void expect_complete(Env& env, const std::string& folder) {
  EXPECT_EQ(content(env, folder + "/a"), kNew);
  EXPECT_EQ(content(env, folder + "/in/b"), kNew);
}

TEST(OutputFolder, AppearsCompleteOrNotAtAll) {
  int absent = 0;
  crash_everywhere(
      {}, [](Env&) {}, [](Env& env) { return write_folder(env, "deep/out", false); },
      [&](Env& env, bool wrote) {
        if (env.exists("deep/out")) return expect_complete(env, "deep/out");
        EXPECT_FALSE(wrote);
        ++absent;
        or_throw(write_folder(env, "deep/out", false));
        EXPECT_THAT(or_throw(env.list("deep")), ElementsAre("out"));
      });
  EXPECT_GT(absent, 10);
}

void put_old_folder(Env& env) {
  or_throw(env.make_folders("out"));
  put_file(env, "out/a", kOld);
  put_file(env, "out/only_old", kOld);
}

// One of the two states, whole, or (where names cannot be exchanged) the old folder standing aside until the next run.
void check_replacement(Env& env, bool wrote, bool may_stand_aside) {
  if (!env.exists("out")) {
    EXPECT_TRUE(may_stand_aside);
    EXPECT_EQ(content(env, ".out.skein-old/only_old"), kOld);
    // A run that refuses to overwrite must still put the old folder back.
    expect_error(OutputFolder::begin(env, "out", false), "exists already");
    EXPECT_EQ(content(env, "out/only_old"), kOld);
  } else if (env.exists("out/only_old")) {
    EXPECT_FALSE(wrote);
    EXPECT_EQ(content(env, "out/a"), kOld);
  } else {
    expect_complete(env, "out");
  }
  or_throw(write_folder(env, "out", true));
  expect_complete(env, "out");
  EXPECT_THAT(or_throw(env.list(".")), ElementsAre("out"));
}

TEST(OutputFolder, OverAnExistingFolderLeavesTheOldOrTheNewOne) {
  crash_everywhere(
      {}, put_old_folder, [](Env& env) { return write_folder(env, "out", true); },
      [](Env& env, bool wrote) { check_replacement(env, wrote, false); });
}

TEST(OutputFolder, KeepsTheOldFolderWhereNamesCannotBeExchanged) {
  crash_everywhere(
      {.no_exchange = true}, put_old_folder, [](Env& env) { return write_folder(env, "out", true); },
      [](Env& env, bool wrote) { check_replacement(env, wrote, true); });
}

TEST(OutputFolder, RefusesAnExistingTargetUnlessToldToOverwrite) {
  const auto env = make_memory_env();
  put_old_folder(*env);
  expect_error(OutputFolder::begin(*env, "out", false), "out exists already; give another name, or --overwrite");
  EXPECT_EQ(content(*env, "out/a"), kOld);
}

TEST(OutputFolder, RefusesToReplaceAFile) {
  const auto env = testing::env_with("out", kOld);
  expect_error(OutputFolder::begin(*env, "out", true), "out is a file");
}

TEST(OutputFolder, WithoutCommitNothingStays) {
  const auto env = make_memory_env();
  {
    const auto output = or_throw(OutputFolder::begin(*env, "out", false));
    put_file(*env, join_path(output->path(), "a"), kNew);
    EXPECT_FALSE(env->exists("out"));
  }
  EXPECT_TRUE(or_throw(env->list(".")).empty());
}

TEST(OutputFolder, DoesNotReplaceATargetThatAppearsMeanwhile) {
  const auto env = make_memory_env();
  const auto output = or_throw(OutputFolder::begin(*env, "out", false));
  put_old_folder(*env);
  expect_error(output->commit(), "has appeared");
  EXPECT_EQ(content(*env, "out/a"), kOld);
}

TEST(OutputFolder, OnTheRealFileSystemReplacesAFolder) {
  const std::string root = ::testing::TempDir() + "skein_output_folder_test_" + std::to_string(getpid());
  or_throw(real_env().remove_tree(root));
  or_throw(write_folder(real_env(), root + "/out", false));
  put_file(real_env(), root + "/out/only_old", kOld);
  or_throw(write_folder(real_env(), root + "/out/", true));
  expect_complete(real_env(), root + "/out");
  EXPECT_FALSE(real_env().exists(root + "/out/only_old"));
  EXPECT_THAT(or_throw(real_env().list(root)), ElementsAre("out"));
  or_throw(real_env().remove_tree(root));
}

}  // namespace
}  // namespace skein
