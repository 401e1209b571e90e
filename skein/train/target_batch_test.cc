#include "skein/train/target_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/nn/bridge.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

using testing::ElementsAre;

std::vector<std::int64_t> values(const at::Tensor& tensor) {
  return {tensor.data_ptr<std::int64_t>(), tensor.data_ptr<std::int64_t>() + tensor.numel()};
}

TrainData two_examples() {
  TrainData data;
  data.examples = {EncodedExample{.input = {10, 11, 12}, .target = {20, 2}},
                   EncodedExample{.input = {13}, .target = {21, 22, 2}}};
  data.ids = {"a", "b"};
  return data;
}

TEST(TargetBatch, PacksDecoderOnlyExamplesAndPointsAtTheRowBeforeEachTarget) {
  const auto backbone = tiny::backbone("llama");
  const std::vector<std::int64_t> idxs{0, 1};
  const TargetBatch batch = make_target_batch(two_examples(), idxs, *backbone);
  // Rows 0-3: 10 11 12 20; rows 4-6: 13 21 22. The end token is predicted, never read.
  EXPECT_THAT(values(batch.batch.ids), ElementsAre(10, 11, 12, 20, 13, 21, 22));
  EXPECT_THAT(values(batch.rows), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_THAT(values(batch.targets), ElementsAre(20, 2, 21, 22, 2));
  EXPECT_THAT(batch.target_lengths, ElementsAre(2, 3));
  EXPECT_EQ(batch.num_tokens, 7);
  EXPECT_FALSE(batch.source.has_value());
}

TEST(TargetBatch, GivesAnEncoderDecoderTheInputAsSourceAndTheTargetShifted) {
  const auto backbone = tiny::backbone("t5_v11");
  const std::vector<std::int64_t> idxs{1, 0};
  const TargetBatch batch = make_target_batch(two_examples(), idxs, *backbone);
  ASSERT_TRUE(batch.source.has_value());
  EXPECT_THAT(values(batch.source->ids), ElementsAre(13, 10, 11, 12));
  EXPECT_THAT(values(batch.batch.ids), ElementsAre(0, 21, 22, 0, 20));  // 0: the start token
  EXPECT_THAT(values(batch.rows), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(values(batch.targets), ElementsAre(21, 22, 2, 20, 2));
  EXPECT_EQ(batch.batch.segments[1].source, 1);
  EXPECT_EQ(batch.num_tokens, 9);
}

// A step of three sequences with 2, 3 and 5 target tokens, in micro-batches {2, 3} and {5}.
constexpr StepSize kStep{.sequences = 3, .microbatches = 2, .target_tokens = 10};

TEST(RowWeights, TokenMeanWeighsEveryTargetTokenOfTheStepEqually) {
  EXPECT_THAT(floats_of(row_weights({2, 3}, LossMean::kToken, kStep)), ElementsAre(0.1F, 0.1F, 0.1F, 0.1F, 0.1F));
  EXPECT_THAT(floats_of(row_weights({5}, LossMean::kToken, kStep)), ElementsAre(0.1F, 0.1F, 0.1F, 0.1F, 0.1F));
}

TEST(RowWeights, MicrobatchMeanWeighsMicrobatchesEqually) {
  // 1 / (5 tokens * 2 micro-batches) in both.
  EXPECT_THAT(floats_of(row_weights({2, 3}, LossMean::kMicrobatch, kStep)), ElementsAre(0.1F, 0.1F, 0.1F, 0.1F, 0.1F));
  // With one token only in a micro-batch it counts as much as the other five together.
  EXPECT_THAT(floats_of(row_weights({1}, LossMean::kMicrobatch, kStep)), ElementsAre(0.5F));
}

TEST(RowWeights, SequenceMeanWeighsSequencesEqually) {
  const float of_two = 1.0F / 6, of_three = 1.0F / 9, of_five = 1.0F / 15;
  EXPECT_THAT(floats_of(row_weights({2, 3}, LossMean::kSequence, kStep)),
              ElementsAre(of_two, of_two, of_three, of_three, of_three));
  EXPECT_THAT(floats_of(row_weights({5}, LossMean::kSequence, kStep)),
              ElementsAre(of_five, of_five, of_five, of_five, of_five));
}

}  // namespace
}  // namespace skein
