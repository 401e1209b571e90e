#include "skein/serve/api_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

const char kHello[] = R"("messages": [{"role": "user", "content": "hi"}])";

Json json_of(const std::string& text) {
  Result<Json> parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.ok() ? *parsed : Json();
}

GenerationRequest chat(const std::string& more) {
  return parse_chat_request(json_of(concat("{", kHello, more.empty() ? "" : ", ", more, "}")), {});
}
GenerationRequest complete(const std::string& fields) {
  return parse_completion_request(json_of("{" + fields + "}"), {});
}

// The error of a request that must be refused; its param in front.
template <typename Parse>
std::string refusal(Parse parse) {
  try {
    parse();
  } catch (const ApiFailure& failure) {
    EXPECT_EQ(failure.error().status, 400);
    return failure.error().param + ": " + failure.what();
  }
  return "accepted";
}
std::string chat_refusal(const std::string& more) {
  return refusal([&] { chat(more); });
}
std::string completion_refusal(const std::string& fields) {
  return refusal([&] { complete(fields); });
}

TEST(ChatRequest, HasTheDefaultsOfTheApi) {
  const GenerationRequest request = chat("");
  ASSERT_EQ(request.messages.size(), 1U);
  EXPECT_EQ(request.messages[0].content, "hi");
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.stream);
  EXPECT_FALSE(request.max_tokens.has_value());
  EXPECT_EQ(request.num_logprobs, -1);
}

TEST(ChatRequest, ReadsEveryField) {
  const GenerationRequest request =
      chat(R"("model": "mood", "temperature": 0, "top_p": 0.5, "n": 2, "seed": -7, "max_tokens": 5, "stop": ["a", "b"],
              "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": -100}, "logprobs": true,
              "top_logprobs": 3, "stream": true, "stream_options": {"include_usage": true}, "trace": true,
              "router": {"top_k": 3, "without": ["x"], "choice_by": "sequence", "choice_for": "layer"}, "user": "me")");
  EXPECT_EQ(request.model, "mood");
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.seed, static_cast<std::uint64_t>(-7));
  EXPECT_EQ(request.max_tokens, 5);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{5, -100.0F}}));
  EXPECT_EQ(request.num_logprobs, 3);
  EXPECT_TRUE(request.stream && request.include_usage && request.trace);
  RouterOptions router;
  request.router.apply_to(router);
  EXPECT_EQ(router.top_k, 3);
  EXPECT_EQ(router.without, std::vector<std::string>{"x"});
  EXPECT_EQ(router.use.scope, RouterUse::Scope::kSequence);
  EXPECT_EQ(router.use.sharing, RouterUse::Sharing::kLayer);
}

TEST(ChatRequest, TakesContentInParts) {
  const auto request = parse_chat_request(
      json_of(
          R"({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})"),
      {});
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[0].content, "ab");
}

TEST(ChatRequest, FetchesNothing) {
  const std::string image = R"({"messages": [{"role": "user", "content": [{"type": "image_url",
      "image_url": {"url": "http://169.254.169.254/"}}]}]})";
  EXPECT_THAT(refusal([&] { parse_chat_request(json_of(image), {}); }), HasSubstr("fetches nothing"));
}

TEST(ChatRequest, LeavesTemplatesToTheServer) {
  EXPECT_THAT(chat_refusal(R"("chat_template": "{{ 1 }}")"), HasSubstr("chat_template is not offered"));
  EXPECT_THAT(chat_refusal(R"("chat_template_kwargs": {"a": 1})"), HasSubstr("not offered"));
}

TEST(ChatRequest, BoundsEveryNumber) {
  // Negative, zero, past 32 and 64 bits, a fraction, a text: the values that broke other servers.
  for (const char* n : {"-1", "0", "65", "2147483648", "9223372036854775808", "1e300", "1.5", "\"2\"", "true", "[]"}) {
    EXPECT_THAT(chat_refusal(concat("\"n\": ", n)), HasSubstr("n: n ")) << n;
    EXPECT_THAT(chat_refusal(concat("\"max_tokens\": ", n[0] == '6' ? "4097" : n)), HasSubstr("max_tokens ")) << n;
  }
  EXPECT_EQ(chat("\"n\": 2.0").n, 2);
  EXPECT_THAT(chat_refusal("\"temperature\": 2.1"), HasSubstr("temperature"));
  EXPECT_THAT(chat_refusal("\"top_p\": -0.1"), HasSubstr("top_p"));
  EXPECT_THAT(chat_refusal("\"logprobs\": true, \"top_logprobs\": 21"), HasSubstr("top_logprobs"));
  EXPECT_THAT(chat_refusal("\"router\": {\"top_k\": 0}"), HasSubstr("router.top_k"));
}

TEST(ChatRequest, BoundsStopsAndBiases) {
  std::string stops, biases;
  for (int i = 0; i < 17; ++i) stops += concat(i > 0 ? "," : "", "\"x", i, "\"");
  for (int i = 0; i < 301; ++i) biases += concat(i > 0 ? "," : "", "\"", i, "\": 0");
  EXPECT_THAT(chat_refusal("\"stop\": [" + stops + "]"), HasSubstr("17 entries"));
  EXPECT_THAT(chat_refusal("\"stop\": \"\""), HasSubstr("empty string"));
  EXPECT_THAT(chat_refusal("\"stop\": \"" + std::string(257, 'a') + "\""), HasSubstr("257 characters"));
  EXPECT_THAT(chat_refusal("\"logit_bias\": {" + biases + "}"), HasSubstr("301 entries"));
  EXPECT_THAT(chat_refusal("\"logit_bias\": {\"-1\": 0}"), HasSubstr("logit_bias"));
  EXPECT_THAT(chat_refusal("\"logit_bias\": {\"1\": 101}"), HasSubstr("logit_bias"));
}

TEST(ChatRequest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(chat_refusal("\"temprature\": 1"), HasSubstr("did you mean temperature?"));
  EXPECT_THAT(chat_refusal("\"tools\": [{}]"), HasSubstr("tools is not offered"));
  EXPECT_EQ(chat_refusal("\"tools\": [], \"tool_choice\": \"auto\""), "accepted");
  EXPECT_THAT(chat_refusal("\"response_format\": {\"type\": \"json_object\"}"), HasSubstr("response_format"));
  EXPECT_THAT(chat_refusal("\"stream_options\": {}"), HasSubstr("stream is not"));
}

TEST(ChatRequest, RefusesOtherShapes) {
  EXPECT_THAT(chat_refusal(R"("model": "")"), HasSubstr("model is empty"));
  for (const char* body :
       {"[]", "1", "null", "\"x\"", "{}", R"({"messages": []})", R"({"messages": {}})", R"({"messages": [1]})",
        R"({"messages": [{"role": "tool", "content": "x"}]})", R"({"messages": [{"role": "user"}]})",
        R"({"messages": [{"role": "user", "content": 1}]})"}) {
    EXPECT_NE(refusal([&] { parse_chat_request(json_of(body), {}); }), "accepted") << body;
  }
}

TEST(CompletionRequest, TakesTextsAndTokenIds) {
  EXPECT_EQ(complete(R"("prompt": "a")").prompts.size(), 1U);
  EXPECT_EQ(complete(R"("prompt": ["a", "b"])").prompts.size(), 2U);
  EXPECT_EQ(std::get<1>(complete(R"("prompt": [1, 2])").prompts.at(0)), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(complete(R"("prompt": [[1], [2, 3]])").prompts.size(), 2U);
  EXPECT_EQ(complete(R"("prompt": "a")").max_tokens, 16);
  EXPECT_EQ(complete(R"("prompt": "a", "max_tokens": 0, "echo": true, "logprobs": 0)").num_logprobs, 0);
}

TEST(CompletionRequest, RefusesPromptsThatAreNone) {
  for (const char* prompt :
       {"\"\"", "[]", "[\"\"]", "[[]]", "[1, \"a\"]", "[-1]", "[1.5]", "[4294967296]", "{}", "null", "true"}) {
    EXPECT_NE(completion_refusal(concat("\"prompt\": ", prompt)), "accepted") << prompt;
  }
}

TEST(CompletionRequest, BoundsPromptsTimesN) {
  EXPECT_THAT(completion_refusal(R"("prompt": ["a", "b", "c"], "n": 22)"), HasSubstr("66 answers"));
  EXPECT_THAT(completion_refusal(R"("prompt": "a", "n": 1, "best_of": 2)"), HasSubstr("best_of"));
  EXPECT_THAT(completion_refusal("\"prompt\": \"" + std::string((1 << 20) + 1, 'a') + "\""), HasSubstr("bytes"));
}

TEST(TraceRequest, IsOfOnePrompt) {
  const auto parse = [](const std::string& body) { return parse_trace_request(json_of(body), {}); };
  EXPECT_EQ(parse(R"({"prompt": "a"})").max_tokens, 0);
  EXPECT_TRUE(parse(R"({"messages": [{"role": "user", "content": "a"}]})").is_chat());
  EXPECT_NE(refusal([&] { parse(R"({"prompt": ["a", "b"]})"); }), "accepted");
  EXPECT_NE(refusal([&] { parse("{}"); }), "accepted");
}

TEST(AdapterRequest, NamesAnAdapterAndItsPath) {
  const auto request = parse_adapter_request(json_of(R"({"lora_name": "a", "lora_path": "b"})"), true);
  EXPECT_EQ(request.name, "a");
  EXPECT_EQ(request.path, "b");
  EXPECT_NE(refusal([&] { parse_adapter_request(json_of(R"({"lora_name": "a"})"), true); }), "accepted");
  EXPECT_NE(refusal([&] { parse_adapter_request(json_of(R"({"lora_name": ""})"), false); }), "accepted");
}

}  // namespace
}  // namespace skein
