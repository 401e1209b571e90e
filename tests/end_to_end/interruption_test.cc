// Ctrl-C and kill -9: what is saved can be gone on with, to the same weights as an unbroken run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <sstream>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::HasSubstr;

struct Training {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string data = letter_task(folder, "ab", "abc", 24);

  std::vector<std::string> expert(const std::string& out) const {
    return {"train",        "expert",  "--base",  base,      "--data",    data,     "--out",
            folder / out,   "--steps", "120",     "--batch", "4",         "--rank", "4",
            "--save-every", "5",       "--dtype", "f32",     "--threads", "1",      "--no-sync"};
  }
};

// Waits until the log of a run has a line of step `step`; false if it ended before.
bool wait_for_step(RunningSkein& running, const std::string& log, int step) {
  const std::string sign = "\"step\":" + std::to_string(step) + ",";
  for (int i = 0; i < 6000; ++i) {
    if (read_file(log).find(sign) != std::string::npos) return true;
    if (!running.is_running()) return false;
    usleep(2000);
  }
  return false;
}

void expect_same_weights(const Training& training, const std::string& out, const std::string& unbroken) {
  EXPECT_EQ(read_file(training.folder / (out + "/adapter_model.safetensors")),
            read_file(training.folder / (unbroken + "/adapter_model.safetensors")));
  EXPECT_FALSE(exists(training.folder / (out + ".training"))) << "the saved state outlived its use";
}

TEST(Interruption, KilledAndResumedTrainingGivesTheWeightsOfAnUnbrokenRun) {
  const Training training;
  ASSERT_EQ(run_skein(training.expert("unbroken")).code, 0);
  {
    RunningSkein running(training.expert("killed"));
    ASSERT_TRUE(wait_for_step(running, training.folder / "killed.training/log.jsonl", 12));
    running.signal(SIGKILL);
    EXPECT_EQ(running.wait().code, 128 + SIGKILL);
  }
  EXPECT_FALSE(exists(training.folder / "killed")) << "half an expert under its final name";
  const Outcome again = run_skein(training.expert("killed"));
  EXPECT_EQ(again.code, 1) << "a saved state is not thrown away in silence";
  EXPECT_THAT(again.err, HasSubstr("--resume"));
  auto resume = training.expert("killed");
  resume.push_back("--resume");
  const Outcome resumed = run_skein(resume);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  expect_same_weights(training, "killed", "unbroken");
}

TEST(Interruption, CtrlCSavesAndPrintsTheCommandThatGoesOn) {
  const Training training;
  ASSERT_EQ(run_skein(training.expert("unbroken")).code, 0);
  Outcome stopped;
  {
    RunningSkein running(training.expert("stopped"));
    ASSERT_TRUE(wait_for_step(running, training.folder / "stopped.training/log.jsonl", 7));
    running.signal(SIGINT);
    stopped = running.wait();
  }
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_FALSE(exists(training.folder / "stopped"));
  const std::size_t at = stopped.err.find("go on with: skein ");
  ASSERT_NE(at, std::string::npos) << stopped.err;
  const std::string command = stopped.err.substr(at + 12, stopped.err.find('\n', at) - at - 12);
  EXPECT_THAT(command, testing::EndsWith(" --resume"));
  std::vector<std::string> words;
  std::istringstream stream(command);
  for (std::string word; stream >> word;) words.push_back(word);
  words.erase(words.begin());
  const Outcome resumed = run_skein(words);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  expect_same_weights(training, "stopped", "unbroken");
}

TEST(Interruption, CtrlCEndsGenerationWithItsOwnExitCode) {
  const TemporaryFolder folder;
  const std::string prompt = "Write a very long story.";
  RunningSkein running(
      {"generate", "--base", SKEIN_SOURCE_DIR "/models/smollm2.gguf", "--prompt", prompt, "--max-new-tokens", "8000"});
  usleep(3'000'000);
  ASSERT_TRUE(running.is_running());
  running.signal(SIGINT);
  const Outcome outcome = running.wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("interrupted"));
}

}  // namespace
}  // namespace skein
