#include "skein/train/train_log.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(TrainLog, ResumingDropsLinesAfterTheSavedStepAndHalfALine) {
  const auto env = make_memory_env();
  ASSERT_TRUE(
      write_text_atomically(*env, "log.jsonl",
                            "{\"step\":1,\"loss\":3.5}\n{\"step\":2,\"loss\":3.25}\n{\"step\":2,\"valid_loss\":3}\n"
                            "{\"step\":3,\"loss\":3}\n{\"step\":4,\"lo")
          .ok());
  auto log = or_throw(TrainLog::open(*env, "log.jsonl", 2));
  ASSERT_TRUE(log->append(Json{{"step", 3}, {"loss", 2.5}}).ok());
  ASSERT_TRUE(log->sync().ok());
  EXPECT_EQ(read_text_file(*env, "log.jsonl").value(),
            "{\"step\":1,\"loss\":3.5}\n{\"step\":2,\"loss\":3.25}\n{\"step\":2,\"valid_loss\":3}\n{\"step\":3,"
            "\"loss\":2.5}\n");
}

TEST(TrainLog, AFreshRunBeginsAnEmptyLog) {
  const auto env = make_memory_env();
  ASSERT_TRUE(write_text_atomically(*env, "log.jsonl", "{\"step\":1,\"loss\":3.5}\n").ok());
  ASSERT_TRUE(TrainLog::open(*env, "log.jsonl", std::nullopt).ok());
  EXPECT_EQ(read_text_file(*env, "log.jsonl").value(), "");
}

}  // namespace
}  // namespace skein
