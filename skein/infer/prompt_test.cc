#include "skein/infer/prompt.h"

#include <gmock/gmock.h>

#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;

constexpr TokenId kEnd = 2;
TokenId byte(char c) { return 3 + static_cast<unsigned char>(c); }

// A tokenizer as seen through other settings of its special tokens.
class Reframed : public Tokenizer {
 public:
  Reframed(std::shared_ptr<const Tokenizer> inner, bool add_bos, bool add_eos)
      : inner_(std::move(inner)), special_(inner_->special()) {
    special_.add_bos = add_bos;
    special_.add_eos = add_eos;
  }
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenId> ids = inner_->encode(text, {.add_special = false, .parse_special = options.parse_special});
    if (options.add_special && special_.add_bos) ids.insert(ids.begin(), 1);
    if (options.add_special && special_.add_eos) ids.push_back(kEnd);
    return ids;
  }
  std::string decode(std::span<const TokenId> ids, bool skip) const override { return inner_->decode(ids, skip); }
  std::string_view token(TokenId id) const override { return inner_->token(id); }
  std::int64_t vocabulary_size() const override { return inner_->vocabulary_size(); }
  const SpecialTokens& special() const override { return special_; }
  const std::optional<std::string>& chat_template() const override { return inner_->chat_template(); }

 private:
  std::shared_ptr<const Tokenizer> inner_;
  SpecialTokens special_;
};

struct Prompts : ::testing::Test {
  std::shared_ptr<const Tokenizer> tokenizer = or_throw(tokenizer_from_json(
      testing::tiny_tokenizer_json().dump(),
      R"({"eos_token": "<eos>", "chat_template": "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '<eos>' }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"})",
      "tiny"));
  Reframed t5{tokenizer, false, true};
  Reframed gemma{tokenizer, true, false};
  BackboneConfig decoder = testing::tiny_config(Family::kLlama);
  BackboneConfig encoder_decoder = testing::tiny_config(Family::kT5);
  Example example{.input = "xy", .target = "A", .choices = {"A", "ba"}};
};

TEST_F(Prompts, HaveASeparatorAndTargetsAnEnd) {
  const EncodedExample encoded = encode_example(example, *tokenizer, decoder, {});
  EXPECT_THAT(encoded.input, ElementsAre(byte('x'), byte('y'), byte('\n')));
  EXPECT_THAT(encoded.target, ElementsAre(byte('A'), kEnd));  // apart: no "\nA" in one token
  EXPECT_THAT(encoded.choices, ElementsAre(ElementsAre(byte('A'), kEnd), ElementsAre(byte('b'), byte('a'), kEnd)));
  EXPECT_FALSE(encoded.input_was_cut);
}

TEST_F(Prompts, TakeTheTokenizersBeginningButNotItsEndBeforeATarget) {
  EXPECT_THAT(encode_example(example, gemma, decoder, {}).input, ElementsAre(1, byte('x'), byte('y'), byte('\n')));
  EXPECT_THAT(encode_example(example, t5, decoder, {}).input, ElementsAre(byte('x'), byte('y'), byte('\n')));
}

TEST_F(Prompts, GoToAnEncoderWithoutASeparatorAndWithItsEnd) {
  const EncodedExample encoded = encode_example(example, t5, encoder_decoder, {});
  EXPECT_THAT(encoded.input, ElementsAre(byte('x'), byte('y'), kEnd));
  EXPECT_THAT(encoded.target, ElementsAre(byte('A'), kEnd));
}

TEST_F(Prompts, LoseTheirEndButNotTheirFrame) {
  example.input = "abcdef";
  const EncodedExample cut = encode_example(example, gemma, decoder, {.max_input = 4});
  EXPECT_THAT(cut.input, ElementsAre(1, 259, byte('c'), byte('\n')));
  EXPECT_TRUE(cut.input_was_cut);
  EXPECT_FALSE(encode_example(example, gemma, decoder, {.max_input = 7}).input_was_cut);
  EXPECT_THAT(encode_example(example, t5, encoder_decoder, {.max_input = 3}).input, ElementsAre(259, byte('c'), kEnd));
  EXPECT_THAT(failure_of([&] { encode_example(example, gemma, decoder, {.max_input = 1}); }), HasSubstr("--max-input"));
}

TEST_F(Prompts, CutTargetsBeforeTheirEnd) {
  example = {.input = "x", .target = "hello"};
  EXPECT_THAT(encode_example(example, *tokenizer, decoder, {.max_target = 2}).target,
              ElementsAre(byte('h'), byte('e'), kEnd));
}

TEST_F(Prompts, TokeniseJoinedAsLmEvalDoes) {
  const EncodedExample encoded = encode_example(example, *tokenizer, decoder, {.joined = true});
  // White space at the prompt's end goes to the choice, where it may join the first token.
  EXPECT_THAT(encoded.input, ElementsAre(byte('x'), byte('y')));
  EXPECT_THAT(encoded.choices[0], ElementsAre(260, kEnd));  // "\nA"
  EXPECT_THAT(encoded.choices[1], ElementsAre(byte('\n'), byte('b'), byte('a'), kEnd));
  example = {.input = "x", .target = "b"};
  const EncodedExample spaced = encode_example(example, *tokenizer, decoder, {.separator = " ", .joined = true});
  EXPECT_THAT(spaced.input, ElementsAre(byte('x')));
  EXPECT_THAT(spaced.target, ElementsAre(byte(' '), byte('b'), kEnd));
}

TEST_F(Prompts, BeginSomewhereEvenWithoutText) {
  EXPECT_THAT(encode_prompt("", *tokenizer, decoder, {.separator = ""}), ElementsAre(kEnd));
}

TEST_F(Prompts, AreNeverCutAlone) {
  EXPECT_EQ(encode_prompt("xxxx", *tokenizer, decoder, {.separator = "", .max_input = 2}).size(), 4u);
}

TEST_F(Prompts, SpeakTheModelsChat) {
  example = {.input = "hi", .target = "yo"};
  const auto text_of = [&](const EncodedExample& encoded) { return tokenizer->decode(encoded.input, false); };
  EXPECT_EQ(text_of(encode_example(example, *tokenizer, decoder, {.chat = true})), "[user]hi<eos>[assistant]");
  example.messages = {{"system", "s"}, {"user", "u"}};
  EXPECT_EQ(text_of(encode_example(example, *tokenizer, decoder, {.chat = true})),
            "[system]s<eos>[user]u<eos>[assistant]");
  example = {.input = "hello there", .target = "yo"};
  const EncodedExample cut = encode_example(example, *tokenizer, decoder, {.chat = true, .max_input = 22});
  EXPECT_EQ(text_of(cut), "[user]hell<eos>[assistant]");
  EXPECT_TRUE(cut.input_was_cut);
  EXPECT_THAT(failure_of([&] { encode_example(example, *tokenizer, decoder, {.chat = true, .max_input = 10}); }),
              HasSubstr("--max-input"));
  EXPECT_THAT(failure_of([&] {
                encode_example(example,
                               *or_throw(tokenizer_from_json(testing::tiny_tokenizer_json().dump(), "", "bare")),
                               decoder, {.chat = true});
              }),
              HasSubstr("template"));
}

TEST_F(Prompts, EndAnAnswerAsTheTemplateDoes) {
  const auto other = or_throw(tokenizer_from_json(
      testing::tiny_tokenizer_json().dump(),
      R"({"eos_token": "<eos>", "chat_template": "{% for m in messages %}{{ m['content'] + '<pad>' }}{% endfor %}"})",
      "tiny"));
  EXPECT_EQ(end_token(*other, decoder, true), 0);
  EXPECT_EQ(end_token(*other, decoder, false), kEnd);
}

TEST_F(Prompts, SayThatNoTokenEndsAText) {
  const auto bare = or_throw(tokenizer_from_json(testing::tiny_tokenizer_json().dump(), "", "bare"));
  BackboneConfig config = decoder;
  EXPECT_EQ(end_token(*bare, config, false), 2);  // the base's
  config.eos_tokens.clear();
  if (!bare->special().eos) {
    EXPECT_THAT(failure_of([&] { end_token(*bare, config, false); }), HasSubstr("end-of-sequence"));
  }
}

}  // namespace
}  // namespace skein
