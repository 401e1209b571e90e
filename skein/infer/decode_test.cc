#include "skein/infer/decode.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;
using testing::tiny_model;

constexpr Family kFamilies[] = {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5};

std::vector<TokenId> sample_prompt(int i) {
  std::vector<TokenId> prompt;
  for (int t = 0; t < 3 + 7 * i; ++t) prompt.push_back(3 + (41 * i + 23 * t) % 250);
  return prompt;
}

// Slow and obvious: the whole sequence again for every token.
std::vector<TokenId> decode_slowly(const Backbone& backbone, const std::vector<TokenId>& prompt, int max_new_tokens) {
  const bool encoder_decoder = backbone.config().is_encoder_decoder();
  std::vector<TokenId> tokens = prompt, out;
  if (encoder_decoder) tokens = {static_cast<TokenId>(backbone.config().decoder_start_token)};
  while (static_cast<int>(out.size()) < max_new_tokens) {
    ForwardState state;
    EncodedSource source;
    if (encoder_decoder) source = backbone.encode(pack({{prompt}}, at::kCPU), state);
    const PackedBatch batch = pack({SequenceInput{tokens, {}, nullptr, encoder_decoder ? 0 : -1}}, at::kCPU);
    const at::Tensor logits = backbone.logits(backbone.forward(batch, encoder_decoder ? &source : nullptr, state));
    const auto token = static_cast<TokenId>(logits[-1].argmax().item<std::int64_t>());
    if (token == 2) break;
    out.push_back(token);
    tokens.push_back(token);
  }
  return out;
}

Decoded decoded(const LoadedModel& model, const std::vector<TokenId>& prompt, const DecodeOptions& options,
                const std::function<void(std::string_view)>& on_text = nullptr) {
  ForwardState state = model.new_state();
  return decode(*model.backbone, *model.tokenizer, prompt, options, state, on_text);
}

TEST(Decode, IsGreedyAsTheWholeSequenceComputedAnew) {
  for (const Family family : kFamilies) {
    const LoadedModel model = tiny_model(family);
    for (int i = 0; i < 3; ++i) {
      const Decoded result = decoded(model, sample_prompt(i), {.max_new_tokens = 12});
      EXPECT_EQ(result.tokens, decode_slowly(*model.backbone, sample_prompt(i), 12)) << family_name(family) << " " << i;
      EXPECT_EQ(result.text, model.tokenizer->decode(result.tokens, true));
    }
  }
}

TEST(Decode, GivesABatchWhatItGivesOneAtATime) {
  for (const auto& [family, base_bits] : {std::pair{Family::kLlama, 0},
                                          {Family::kGemma3, 0},
                                          {Family::kT5, 0},
                                          {Family::kLlama, 8},
                                          {Family::kLlama, 4},
                                          {Family::kT5, 8}}) {
    const LoadedModel model = tiny_model(family, base_bits);
    std::vector<std::vector<TokenId>> prompts;
    for (int i = 0; i < 5; ++i) prompts.push_back(sample_prompt(i));
    for (const double temperature : {0.0, 1.0}) {
      const DecodeOptions options{.max_new_tokens = 15, .temperature = temperature, .seed = 5};
      ForwardState state = model.new_state();
      const auto batch = decode_batch(*model.backbone, *model.tokenizer, prompts, options, state);
      for (std::size_t i = 0; i < prompts.size(); ++i)
        EXPECT_EQ(batch[i].tokens, decoded(model, prompts[i], options).tokens);
    }
  }
}

TEST(Decode, ReadsAPromptInPiecesAsInOne) {
  for (const Family family : {Family::kLlama, Family::kGemma3}) {
    const LoadedModel model = tiny_model(family);
    const std::vector<TokenId> prompt = sample_prompt(3);  // 24 tokens
    const Decoded whole = decoded(model, prompt, {.max_new_tokens = 12});
    for (const std::int64_t rows : {1, 5, 23}) {
      EXPECT_EQ(decoded(model, prompt, {.max_new_tokens = 12, .rows_at_once = rows}).tokens, whole.tokens) << rows;
    }
    const at::NoGradGuard no_gradient;
    KvSequence cache(model.backbone->config(), at::TensorOptions(model.backbone->compute().dtype), 24);
    SequenceInput input{.tokens = prompt, .cache = &cache};
    ForwardState state;
    read_ahead(*model.backbone, input, 5, state);
    EXPECT_EQ(input.tokens, std::vector<TokenId>(prompt.begin() + 20, prompt.end()));
    EXPECT_EQ(cache.length(), 20);
  }
}

TEST(Decode, StreamsTheTextItReturns) {
  const LoadedModel model = tiny_model();
  for (const std::string stop : {"", "a", "q"}) {
    std::string streamed;
    const DecodeOptions options{.max_new_tokens = 60, .temperature = 2, .seed = 3, .stop = {stop}};
    const Decoded result =
        decoded(model, sample_prompt(1), options, [&](std::string_view piece) { streamed += piece; });
    EXPECT_EQ(streamed, result.text);
  }
}

TEST(Decode, EndsBeforeAStopText) {
  const LoadedModel model = tiny_model();
  const DecodeOptions free{.max_new_tokens = 40, .temperature = 2, .seed = 9};
  const Decoded whole = decoded(model, sample_prompt(2), free);
  ASSERT_GT(whole.text.size(), 12u);
  DecodeOptions stopping = free;
  stopping.stop = {whole.text.substr(8, 3)};
  const Decoded stopped = decoded(model, sample_prompt(2), stopping);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(stopping.stop[0])));
  EXPECT_TRUE(stopped.ended);
  EXPECT_LT(stopped.tokens.size(), whole.tokens.size());
}

TEST(Decode, EndsAtAnEndTokenUnlessToldToGoOn) {
  const LoadedModel model = tiny_model();
  // Any token can be declared an end: take the third that greedy decoding gives.
  const Decoded whole = decoded(model, sample_prompt(0), {.max_new_tokens = 10});
  ASSERT_GE(whole.tokens.size(), 3u);
  const auto env = make_memory_env();
  testing::put_tiny_model(*env, "base", Family::kLlama);
  testing::put_file(*env, "base/generation_config.json", concat("{\"eos_token_id\": ", whole.tokens[2], "}"));
  ModelOptions options;
  options.base = "base";
  const LoadedModel ending = load_model(*env, options);
  const Decoded ended = decoded(ending, sample_prompt(0), {.max_new_tokens = 10});
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), whole.tokens[2]);
  EXPECT_EQ(ended.tokens, std::vector<TokenId>(whole.tokens.begin(), first));
  EXPECT_TRUE(ended.ended);
  EXPECT_EQ(decoded(ending, sample_prompt(0), {.max_new_tokens = 10, .ignore_end = true}).tokens.size(), 10u);
}

TEST(Decode, StopsWhereTheBaseEnds) {
  const LoadedModel model = tiny_model();  // 100 positions
  const std::vector<TokenId> prompt(95, 40);
  const Decoded result = decoded(model, prompt, {.max_new_tokens = 50, .ignore_end = true});
  EXPECT_EQ(result.tokens.size(), 5u);
  EXPECT_FALSE(result.ended);
  EXPECT_TRUE(decoded(model, prompt, {.max_new_tokens = 0}).tokens.empty());
}

TEST(Decode, RefusesAPromptThatFillsTheBaseAndAnEmptyOne) {
  const LoadedModel model = tiny_model();
  EXPECT_THAT(failure_of([&] { decoded(model, std::vector<TokenId>(100, 40), {}); }),
              HasSubstr("the prompt has 100 tokens; the base reads 100"));
  EXPECT_THAT(failure_of([&] { decoded(model, {}, {}); }), HasSubstr("empty prompt"));
}

TEST(Decode, SamplesTheSameForTheSameSeedAndOtherwiseForAnother) {
  const LoadedModel model = tiny_model();
  const DecodeOptions options{.max_new_tokens = 30, .temperature = 3, .top_p = 0.95, .seed = 1};
  DecodeOptions other = options;
  other.seed = 2;
  EXPECT_EQ(decoded(model, sample_prompt(1), options).tokens, decoded(model, sample_prompt(1), options).tokens);
  EXPECT_NE(decoded(model, sample_prompt(1), options).tokens, decoded(model, sample_prompt(1), other).tokens);
}

}  // namespace
}  // namespace skein
