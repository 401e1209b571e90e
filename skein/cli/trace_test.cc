#include "skein/cli/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/cli/trace_page.h"

namespace skein {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Two slots of two kinds, three tokens, two of three experts per token.
Trace small_trace() {
  Trace trace{.model = "tiny", .router = "phatgoose, top 2", .experts = {"ants", "bees", "cats"}};
  trace.slots = {{.module = "model.layers.0.self_attn.q_proj", .layer = 0, .kind = "q_proj"},
                 {.module = "model.layers.0.mlp.up_proj", .layer = 0, .kind = "up_proj"}};
  trace.tokens = {{.position = 0, .id = 5, .text = "The"},
                  {.position = 1, .id = 6, .text = " end"},
                  {.position = 2, .id = 7, .text = ".", .in_answer = true}};
  trace.top_k = 2;
  trace.ids = {0, 1, 1, 2, 2, 0, 0, 2, 1, 0, 2, 1};
  trace.weights = {0.75F, 0.25F, 0.5F, 0.5F, 1, 0, 0.5F, 0.5F, 1, 0, 0.75F, 0.25F};
  return trace;
}

TEST(Trace, SharesOfATokenAreMeansOverTheSlots) {
  const auto shares = token_shares(small_trace());
  EXPECT_THAT(shares[0], ElementsAre(DoubleEq(0.625), DoubleEq(0.125), DoubleEq(0.25)));
  EXPECT_THAT(shares[1], ElementsAre(DoubleEq(0), DoubleEq(0.75), DoubleEq(0.25)));
}

TEST(Trace, SharesOfAGroupAreMeansOverItsSlotsAndTokens) {
  EXPECT_THAT(group_shares(small_trace(), "q_proj"), ElementsAre(DoubleEq(0.25), DoubleEq(0.25), DoubleEq(0.5)));
  const auto all = group_shares(small_trace(), "");
  EXPECT_DOUBLE_EQ(all[0] + all[1] + all[2], 1.0);
}

TEST(Trace, ASlotThatDoesNotReadATokenIsLeftOut) {
  Trace trace = small_trace();
  trace.ids[trace.at(1, 0)] = trace.ids[trace.at(1, 0) + 1] = -1;
  EXPECT_THAT(token_shares(trace)[0], ElementsAre(DoubleEq(0.75), DoubleEq(0.25), DoubleEq(0)));
  EXPECT_FALSE(trace_lines(trace)[0]["modules"].contains("model.layers.0.mlp.up_proj"));
}

TEST(Trace, LinesNameTheChosenExpertsWithTheirWeightsAndLeaveWeightlessOnesOut) {
  const auto lines = trace_lines(small_trace());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[2].dump(),
            "{\"position\":2,\"id\":7,\"text\":\".\",\"part\":\"answer\",\"modules\":{"
            "\"model.layers.0.self_attn.q_proj\":[[\"cats\",1.0]],"
            "\"model.layers.0.mlp.up_proj\":[[\"cats\",0.75],[\"bees\",0.25]]}}");
}

TEST(Trace, GroupsTellAnEncoderDecodersStreamsApart) {
  EXPECT_EQ(slot_group({.module = "encoder.block.0.layer.0.SelfAttention.q", .kind = "q"}), "encoder q");
  EXPECT_EQ(slot_group({.module = "decoder.block.0.layer.0.SelfAttention.q", .kind = "q"}), "decoder q");
  EXPECT_EQ(slot_group({.module = "decoder.block.0.layer.1.EncDecAttention.k", .kind = "k"}), "cross k");
}

TEST(Trace, TextKeepsControlCharactersOnTheirLine) {
  Trace trace = small_trace();
  trace.tokens[0].text = "a\n\x1b[31m";
  const std::string text = trace_text(trace, false);
  EXPECT_THAT(text, HasSubstr("a↵[31m"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Trace, TextGathersTheLeastUsedExpertsInOneColumn) {
  Trace trace = small_trace();
  for (int i = 0; i < 9; ++i) trace.experts.push_back("unused" + std::to_string(i));
  const std::string text = trace_text(trace, false);
  EXPECT_THAT(text, HasSubstr("5 others"));
  EXPECT_THAT(text, Not(HasSubstr("unused5")));
}

TEST(TracePage, HoldsTheDataAndLoadsNothing) {
  const std::string page = trace_page({small_trace()});
  EXPECT_THAT(page, HasSubstr("\"experts\":[\"ants\",\"bees\",\"cats\"]"));
  EXPECT_THAT(page, Not(HasSubstr("SKEIN_TRACE_DATA")));
  EXPECT_THAT(page, Not(HasSubstr("http://")));
  EXPECT_THAT(page, Not(HasSubstr("https://")));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(TracePage, TextCannotEndTheScriptItStandsIn) {
  Trace trace = small_trace();
  trace.tokens[0].text = "</script><script>alert(1)</script>\xff";
  const std::string page = trace_page({trace});
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, HasSubstr("\\u003c/script>\\u003cscript>alert(1)"));
}

TEST(TracePage, NumbersAreLittleEndianSixteenBit) {
  Trace trace = small_trace();
  trace.slots.resize(1);
  trace.tokens.resize(1);
  trace.ids = {2, -1};
  trace.weights = {0.5F, 0};
  const std::string page = trace_page({trace});
  EXPECT_THAT(page, HasSubstr("\"ids\":\"AgD//w==\""));      // 02 00 ff ff
  EXPECT_THAT(page, HasSubstr("\"weights\":\"iBMAAA==\""));  // 5000 = 0x1388
}

}  // namespace
}  // namespace skein
