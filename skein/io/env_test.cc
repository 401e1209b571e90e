#include "skein/io/env.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "skein/io/fault_env.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::put_file;

std::span<const std::byte> test_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// Every promise of env.h, held by the real files, by the twin in memory and by the failing twin that does not fail.
class EnvTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string kind = GetParam();
    memory_ = make_memory_env();
    fault_ = make_fault_env(*memory_);
    env_ = kind == "real" ? &real_env() : kind == "memory" ? memory_.get() : fault_.get();
    root_ = kind == "real" ? ::testing::TempDir() + "skein_env_test_" + std::to_string(getpid()) : "root";
    or_throw(env_->remove_tree(root_));
    or_throw(env_->make_folders(root_));
  }
  void TearDown() override { or_throw(env_->remove_tree(root_)); }

  std::string at(const std::string& name) const { return root_ + "/" + name; }

  std::unique_ptr<Env> memory_;
  std::unique_ptr<FaultEnv> fault_;
  Env* env_ = nullptr;
  std::string root_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, EnvTest, ::testing::Values("real", "memory", "fault"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EnvTest, ReadsWhatWasWritten) {
  put_file(*env_, at("a"), "some bytes");
  EXPECT_EQ(or_throw(read_text_file(*env_, at("a"))), "some bytes");
  const auto map = or_throw(env_->map(at("a")));
  map->will_need(0, 100);
  map->dont_need(3, 2);
  ASSERT_EQ(map->bytes().size(), 10u);
  EXPECT_EQ(map->bytes()[5], std::byte{'b'});
}

TEST_P(EnvTest, ReadsFromTheMiddle) {
  put_file(*env_, at("a"), "0123456789");
  const auto file = or_throw(env_->open(at("a")));
  std::byte part[3];
  or_throw(file->read_at(4, part));
  EXPECT_EQ(part[2], std::byte{'6'});
}

TEST_P(EnvTest, ReadingPastTheEndIsAnError) {
  put_file(*env_, at("a"), "0123456789");
  const auto file = or_throw(env_->open(at("a")));
  std::byte part[3];
  expect_error(file->read_at(8, part), "cut short");
}

TEST_P(EnvTest, ASizedFileTakesBytesInAnyOrderAndKeepsThemWhenOpenedAgain) {
  {
    const auto file = or_throw(env_->open_sized(at("a"), 8));
    or_throw(file->write_at(5, test_bytes("xyz")));
    or_throw(file->write_at(0, test_bytes("ab")));
    file->start_writing(0, 8);
    or_throw(file->sync());
    or_throw(file->close());
  }
  EXPECT_EQ(or_throw(read_text_file(*env_, at("a"))), std::string("ab\0\0\0xyz", 8));
  const auto again = or_throw(env_->open_sized(at("a"), 8));
  or_throw(again->write_at(2, test_bytes("cde")));
  EXPECT_EQ(or_throw(read_text_file(*env_, at("a"))), "abcdexyz");
  EXPECT_FALSE(env_->open_sized(at("nowhere/a"), 8).ok());
}

TEST_P(EnvTest, MapsAnEmptyFile) {
  put_file(*env_, at("a"), "");
  EXPECT_TRUE(or_throw(env_->map(at("a")))->bytes().empty());
}

TEST_P(EnvTest, CreateTruncatesAndAppendDoesNot) {
  put_file(*env_, at("a"), "long text");
  put_file(*env_, at("a"), "new");
  const auto file = or_throw(env_->open_for_append(at("a")));
  or_throw(file->append(std::as_bytes(std::span("er", 2))));
  or_throw(file->sync());
  or_throw(file->close());
  EXPECT_EQ(or_throw(read_text_file(*env_, at("a"))), "newer");
}

TEST_P(EnvTest, ErrorsNameTheFileAndWhatIsWrong) {
  expect_error(env_->open(at("none")), "none: no such file");
  expect_error(env_->map(at("none")), "no such file");
  expect_error(env_->open(root_), "it is a folder");
  expect_error(env_->create(at("none/a")), "no such file");
  expect_error(env_->facts(at("none")), "no such file");
  expect_error(env_->list(at("none")), "no such file");
  expect_error(env_->remove_file(at("none")), "no such file");
}

TEST_P(EnvTest, ListsNamesSorted) {
  put_file(*env_, at("b"), "");
  put_file(*env_, at("a"), "");
  or_throw(env_->make_folders(at("c/d/e")));
  put_file(*env_, at("c/x"), "");
  EXPECT_THAT(or_throw(env_->list(root_)), ElementsAre("a", "b", "c"));
  EXPECT_THAT(or_throw(env_->list(at("c"))), ElementsAre("d", "x"));
}

TEST_P(EnvTest, FactsTellFilesFromFolders) {
  put_file(*env_, at("a"), "12345");
  const auto file = or_throw(env_->facts(at("a")));
  EXPECT_EQ(file.size_bytes, 5u);
  EXPECT_FALSE(file.is_folder);
  EXPECT_NE(file.inode, 0u);
  EXPECT_TRUE(or_throw(env_->facts(root_)).is_folder);
}

TEST_P(EnvTest, RenameReplacesAFile) {
  put_file(*env_, at("a"), "new");
  put_file(*env_, at("b"), "old");
  or_throw(env_->rename(at("a"), at("b")));
  EXPECT_FALSE(env_->exists(at("a")));
  EXPECT_EQ(or_throw(read_text_file(*env_, at("b"))), "new");
}

TEST_P(EnvTest, RenameMovesAFolderWithItsContent) {
  or_throw(env_->make_folders(at("a/in")));
  put_file(*env_, at("a/in/x"), "x");
  or_throw(env_->rename(at("a"), at("b")));
  EXPECT_EQ(or_throw(read_text_file(*env_, at("b/in/x"))), "x");
  EXPECT_FALSE(env_->exists(at("a")));
}

TEST_P(EnvTest, RenameRefusesAFolderThatIsNotEmpty) {
  or_throw(env_->make_folders(at("a")));
  or_throw(env_->make_folders(at("b")));
  put_file(*env_, at("b/x"), "kept");
  EXPECT_FALSE(env_->rename(at("a"), at("b")).ok());
  EXPECT_EQ(or_throw(read_text_file(*env_, at("b/x"))), "kept");
}

TEST_P(EnvTest, ExchangeSwapsTwoFolders) {
  or_throw(env_->make_folders(at("a")));
  or_throw(env_->make_folders(at("b")));
  put_file(*env_, at("a/x"), "from a");
  put_file(*env_, at("b/x"), "from b");
  const bool exchanged = or_throw(env_->exchange(at("a"), at("b")));
  EXPECT_EQ(or_throw(read_text_file(*env_, at("a/x"))), exchanged ? "from b" : "from a");
  EXPECT_EQ(or_throw(read_text_file(*env_, at("b/x"))), exchanged ? "from a" : "from b");
}

TEST_P(EnvTest, AnOpenFileSurvivesItsRemoval) {
  put_file(*env_, at("a"), "bytes");
  const auto file = or_throw(env_->open(at("a")));
  or_throw(env_->remove_file(at("a")));
  std::byte part[5];
  or_throw(file->read_at(0, part));
  EXPECT_EQ(part[0], std::byte{'b'});
}

TEST_P(EnvTest, RemovingATreeThatIsNotThereIsNoError) {
  or_throw(env_->make_folders(at("t/u")));
  put_file(*env_, at("t/u/x"), "");
  or_throw(env_->remove_tree(at("t")));
  EXPECT_FALSE(env_->exists(at("t/u/x")));
  or_throw(env_->remove_tree(at("t")));
}

TEST_P(EnvTest, RefusesTextFilesOverTheBound) {
  put_file(*env_, at("a"), "12345");
  expect_error(read_text_file(*env_, at("a"), 4), "has 5 bytes; at most 4");
}

TEST_P(EnvTest, MakeFoldersRefusesAFileOnTheWay) {
  put_file(*env_, at("a"), "");
  EXPECT_FALSE(env_->make_folders(at("a/b")).ok());
}

TEST(Paths, JoinAndSplit) {
  EXPECT_EQ(join_path("a/b", "c"), "a/b/c");
  EXPECT_EQ(join_path("a/", "c"), "a/c");
  EXPECT_EQ(join_path(".", "c"), "c");
  EXPECT_EQ(base_name("a/b"), "b");
  EXPECT_EQ(base_name("a/b/"), "b");
  EXPECT_EQ(base_name("b"), "b");
  EXPECT_EQ(parent_folder("a/b/"), "a");
  EXPECT_EQ(parent_folder("b"), ".");
  EXPECT_EQ(parent_folder("/b"), "/");
}

TEST(Paths, UnsafeNamesAreTold) {
  for (const char* name : {"model.safetensors", "a b", "..a", ".hidden", "\xc3\xa9"})
    EXPECT_TRUE(is_safe_file_name(name)) << name;
  for (const std::string name : {"", ".", "..", "a/b", "/etc", "a\\b", "-rf", "a\nb", "\x7f"})
    EXPECT_FALSE(is_safe_file_name(name)) << name;
  EXPECT_FALSE(is_safe_file_name(std::string("a\0b", 3)));
  EXPECT_TRUE(is_safe_file_name(std::string(200, 'a')));
  EXPECT_FALSE(is_safe_file_name(std::string(201, 'a')));
}

TEST(FaultEnv, ShortReadsSeeHalfOfAFile) {
  const auto memory = make_memory_env();
  put_file(*memory, "a", "0123456789");
  const auto env = make_fault_env(*memory);
  env->set_plan({.short_reads = true});
  EXPECT_EQ(or_throw(env->map("a"))->bytes().size(), 5u);
  const auto file = or_throw(env->open("a"));
  EXPECT_EQ(file->size(), 5u);
  std::byte part[6];
  expect_error(file->read_at(0, part), "cut short");
}

TEST(FaultEnv, LosesWhatWasNotSynced) {
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  const auto file = or_throw(env->create("a"));
  or_throw(file->append(std::as_bytes(std::span("kept", 4))));
  or_throw(file->sync());
  or_throw(file->append(std::as_bytes(std::span("lost", 4))));
  or_throw(file->close());
  or_throw(env->rename("a", "b"));
  or_throw(env->lose_unsynced());
  EXPECT_EQ(or_throw(read_text_file(*memory, "b")), "kept");
}

TEST(FaultEnv, ASizedFileGetsBackWhatItHeldAtItsLastSync) {
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  const auto file = or_throw(env->open_sized("a", 4));
  or_throw(file->write_at(0, test_bytes("ab")));
  or_throw(file->sync());
  or_throw(file->write_at(1, test_bytes("xyz")));
  or_throw(env->rename("a", "b"));
  or_throw(env->lose_unsynced());
  EXPECT_EQ(or_throw(read_text_file(*memory, "b")), std::string("ab\0\0", 4));
}

TEST(FaultEnv, AFullDiskTakesOfASizedFileWhatStillFits) {
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  env->set_plan({.write_budget_bytes = 3});
  const auto file = or_throw(env->open_sized("a", 4));
  or_throw(file->write_at(2, test_bytes("cd")));
  EXPECT_FALSE(file->write_at(0, test_bytes("ab")).ok());
  EXPECT_EQ(or_throw(read_text_file(*memory, "a")), std::string("a\0cd", 4));
}

TEST(FaultEnv, AFullDiskTakesWhatStillFits) {
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  env->set_plan({.write_budget_bytes = 6});
  const auto file = or_throw(env->create("a"));
  or_throw(file->append(std::as_bytes(std::span("1234", 4))));
  expect_error(file->append(std::as_bytes(std::span("5678", 4))), "the disk is full");
  EXPECT_EQ(or_throw(read_text_file(*memory, "a")), "123456");
}

TEST(RealEnv, AFullDiskSaysSo) {
  if (!real_env().exists("/dev/full")) return;  // Linux's device on which every write finds the disk full
  const auto file = or_throw(real_env().open_for_append("/dev/full"));
  expect_error(file->append(std::as_bytes(std::span("x", 1))), "cannot write /dev/full: the disk is full");
}

}  // namespace
}  // namespace skein
