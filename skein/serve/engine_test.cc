#include "skein/serve/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <thread>

#include "skein/base/concat.h"
#include "skein/infer/decode.h"
#include "skein/serve/fair_queue.h"
#include "skein/serve/prefix_cache.h"
#include "skein/serve/tiny_engine.h"

namespace skein {
namespace {

using testing::Answer;
using testing::KeepingSink;
using testing::TinyEngine;

TEST(FairQueue, ClientsTakeTurns) {
  FairQueue<int> queue;
  for (const int item : {1, 2, 3}) queue.push("a", item);
  queue.push("b", 4);
  EXPECT_EQ(queue.take([](int item) { return item == 2; }), 2);
  EXPECT_EQ(queue.size(), 3u);
  std::vector<int> order;
  while (!queue.empty()) order.push_back(queue.pop());
  EXPECT_EQ(order, (std::vector<int>{1, 4, 3}));
}

// What `skein generate` writes: one prompt at a time, without the engine.
Decoded decoded_alone(TinyEngine& tiny, const ModelChoice& choice, const std::vector<TokenId>& prompt,
                      const DecodeOptions& decoding) {
  ModelOptions options = tiny.options.model;
  options.library.clear();
  if (choice.kind == ModelChoice::Kind::kMixture) options.mixture = choice.name;
  if (choice.kind == ModelChoice::Kind::kExpert || choice.kind == ModelChoice::Kind::kRouter) {
    options.library = "pool";
    options.router = choice.router;
  }
  if (choice.kind == ModelChoice::Kind::kExpert) {
    options.router = default_router("single");
    options.router.expert = choice.name;
  }
  const LoadedModel model = load_model(*tiny.env, options);
  ForwardState state = model.new_state();
  return decode(*model.backbone, *model.tokenizer, prompt, decoding, state);
}

// What may differ between engines without a difference in what they answer.
struct Setting {
  const char* name;
  int max_running;
  std::int64_t prefill_tokens, cache_pages;  // 0 pages: the default
  bool reuses_prefixes;
};
constexpr Setting kSettings[] = {{"one at a time", 1, 256, 0, false},
                                 {"together", 64, 256, 0, false},
                                 {"prompts in pieces", 64, 8, 0, false},
                                 {"prefixes reused", 64, 16, 0, true},
                                 {"too small a cache", 64, 16, 7, true}};

class EngineAnswers : public ::testing::TestWithParam<std::tuple<Family, c10::ScalarType>> {};

// Greedy tokens are the same because every row of logits is the same to the last bit: f32 and bf16 alike.
TEST_P(EngineAnswers, DoNotDependOnWhatElseIsServed) {
  const auto [family, dtype] = GetParam();
  struct Case {
    ModelChoice choice;
    std::vector<TokenId> prompt;
    Decoded expected;
  };
  std::vector<Case> cases;
  std::set<std::string> texts;
  {
    TinyEngine tiny(family);
    tiny.options.model.compute.dtype = dtype;
    for (const ModelChoice& choice : testing::tiny_choices()) {
      for (const std::vector<TokenId>& prompt : testing::tiny_prompts()) {
        cases.push_back({choice, prompt, decoded_alone(tiny, choice, prompt, {.max_new_tokens = 40})});
        texts.insert(cases.back().expected.text);
      }
    }
  }
  EXPECT_GT(texts.size(), 3u) << "the experts must make a difference";
  for (const Setting& setting : kSettings) {
    TinyEngine tiny(family);
    tiny.options.model.compute.dtype = dtype;
    tiny.options.max_running = setting.max_running;
    tiny.options.prefill_tokens = setting.prefill_tokens;
    tiny.options.reuses_prefixes = setting.reuses_prefixes;
    const BackboneConfig config = tiny.engine().config();
    tiny.options.cache_bytes =
        setting.cache_pages * 16 * KvPool::bytes_per_token(config, at::TensorOptions().dtype(dtype));
    tiny.made = nullptr;
    for (int round = 0; round < 2; ++round) {  // in the second, prompts are known
      std::vector<std::shared_ptr<KeepingSink>> sinks, twins;
      for (const Case& c : cases) {
        for (auto* of : {&sinks, &twins}) {
          of->push_back(tiny.submit({.prompt = c.prompt, .model = c.choice, .max_new_tokens = 40}));
        }
      }
      for (std::size_t i = 0; i < cases.size(); ++i) {
        const Answer answer = sinks[i]->wait();
        EXPECT_EQ(answer.finish.failure, "");
        EXPECT_EQ(answer.tokens, cases[i].expected.tokens) << setting.name << ", case " << i << ", round " << round;
        EXPECT_EQ(answer.text, cases[i].expected.text);
        EXPECT_EQ(twins[i]->wait().tokens, cases[i].expected.tokens) << setting.name << ", case " << i << ", twin";
      }
    }
    tiny.engine().stop(std::chrono::milliseconds(0));
    const EngineStats stats = tiny.engine().stats();
    EXPECT_EQ(stats.finished, static_cast<std::int64_t>(4 * cases.size()));
    EXPECT_EQ(stats.pages_used, 0);
    EXPECT_EQ(stats.reused_tokens > 0, setting.reuses_prefixes && family != Family::kT5) << setting.name;
    EXPECT_EQ(stats.preempted > 0, setting.cache_pages > 0) << setting.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EngineAnswers,
                         ::testing::Combine(::testing::Values(Family::kLlama, Family::kGemma3, Family::kT5),
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

TEST(Engine, SamplesAsDecodeDoesFromTheSameSeed) {
  TinyEngine tiny(Family::kLlama);
  const std::vector<TokenId> prompt = {70, 71, 72};
  const DecodeOptions decoding{.max_new_tokens = 30, .temperature = 1.5, .top_p = 0.9, .seed = 7};
  const Decoded expected = decoded_alone(tiny, {}, prompt, decoding);
  const Request request{
      .prompt = prompt, .sampling = {.temperature = 1.5, .top_p = 0.9, .seed = 7}, .max_new_tokens = 30};
  Request other = request;
  other.sampling.seed = 8;
  const auto first = tiny.submit(request), second = tiny.submit(other);
  EXPECT_EQ(first->wait().tokens, expected.tokens);
  EXPECT_NE(second->wait().tokens, expected.tokens);
}

TEST(Engine, PenaltiesKeepTokensFromComingAgain) {
  TinyEngine tiny(Family::kLlama);
  const Request request{
      .prompt = {70, 71, 72}, .sampling = {.presence_penalty = 1e3}, .max_new_tokens = 40, .ignore_end = true};
  std::vector<TokenId> tokens = tiny.answer(request).tokens;
  ASSERT_EQ(tokens.size(), 40u);
  std::sort(tokens.begin(), tokens.end());
  EXPECT_EQ(std::adjacent_find(tokens.begin(), tokens.end()), tokens.end());
  const Request biased{.prompt = {70, 71, 72}, .sampling = {.logit_bias = {{99, 1e3F}}}, .max_new_tokens = 3};
  EXPECT_EQ(tiny.answer(biased).tokens, (std::vector<TokenId>{99, 99, 99}));
}

TEST(Engine, TellsLogProbabilitiesOfPromptAndAnswer) {
  TinyEngine tiny(Family::kLlama);
  tiny.options.prefill_tokens = 16;
  const std::vector<TokenId> prompt = testing::tiny_prompts()[2];
  const Answer answer = tiny.answer({.prompt = prompt, .max_new_tokens = 5, .num_logprobs = 3, .score_prompt = true});
  ASSERT_EQ(answer.prompt.size(), prompt.size());
  EXPECT_FALSE(answer.prompt[0].logprobs);
  std::vector<TokenId> all = prompt;
  all.insert(all.end(), answer.tokens.begin(), answer.tokens.end());
  const LoadedModel model = load_model(*tiny.env, {.base = "base"});
  const c10::InferenceMode inference;
  ForwardState state;
  const at::Tensor logprobs = at::log_softmax(
      model.backbone->logits(model.backbone->forward(pack({{.tokens = all}}, at::kCPU), nullptr, state)), 1);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const auto& told = i < prompt.size() ? answer.prompt[i].logprobs : answer.generated[i - prompt.size()].logprobs;
    ASSERT_TRUE(told);
    const at::Tensor row = logprobs[static_cast<std::int64_t>(i) - 1];
    EXPECT_NEAR(told->logprob, row[all[i]].item<float>(), 1e-4);
    ASSERT_EQ(told->top.size(), 3u);
    EXPECT_NEAR(told->top[0].second, row.max().item<float>(), 1e-4);
    EXPECT_GE(told->top[0].second, told->top[1].second);
  }
  // The prompt alone.
  const Answer scored = tiny.answer({.prompt = prompt, .max_new_tokens = 0, .num_logprobs = 0, .score_prompt = true});
  EXPECT_EQ(scored.prompt.size(), prompt.size());
  EXPECT_TRUE(scored.tokens.empty());
}

// The softmax over a row's scores is vectorised by its place among the rows: a weight of at most 1 may differ by the
// rounding of an exponential, a sum of k and a quotient, some units of 2^-24 each.
void expect_same_weights(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 16 * 0x1p-24) << i;
}

TEST(Engine, TracesChoicesTheSameAloneAndInCompany) {
  for (const Family family : {Family::kLlama, Family::kT5}) {
    TinyEngine tiny(family);
    tiny.options.prefill_tokens = 16;
    const auto requests = [] {
      std::vector<Request> all;
      for (const ModelChoice& choice : testing::tiny_choices()) {
        for (const std::vector<TokenId>& prompt : testing::tiny_prompts()) {
          all.push_back({.prompt = prompt, .model = choice, .max_new_tokens = 6, .ignore_end = true, .trace = true});
        }
      }
      return all;
    }();
    std::vector<Answer> alone;
    for (const Request& request : requests) alone.push_back(tiny.answer(request));
    std::vector<std::shared_ptr<KeepingSink>> sinks;
    for (const Request& request : requests) sinks.push_back(tiny.submit(request));
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const Answer together = sinks[i]->wait();
      const bool is_base = requests[i].model.kind == ModelChoice::Kind::kBase;
      const std::size_t start = family == Family::kT5 ? 1 : 0;  // the decoder's start token
      ASSERT_EQ(together.traces.size(), is_base ? 0u : 5u) << i;
      ASSERT_EQ(together.prompt.size(), is_base ? 0u : requests[i].prompt.size() + start);
      for (std::size_t t = 0; t < together.prompt.size(); ++t) {
        const TokenTrace &got = *together.prompt[t].trace, &want = *alone[i].prompt[t].trace;
        EXPECT_EQ(got.slots, want.slots);
        EXPECT_EQ(got.ids, want.ids);
        expect_same_weights(got.weights, want.weights);
        EXPECT_FALSE(got.slots.empty());
      }
      for (std::size_t t = 0; t < together.traces.size(); ++t) {
        EXPECT_EQ(together.traces[t].ids, alone[i].traces[t].ids);
        expect_same_weights(together.traces[t].weights, alone[i].traces[t].weights);
      }
    }
  }
}

TEST(Engine, StopTextsAreNeverShown) {
  TinyEngine tiny(Family::kLlama);
  const Request plain{.prompt = {70, 71, 72}, .max_new_tokens = 30, .ignore_end = true};
  const std::string whole = tiny.answer(plain).text;
  ASSERT_GT(whole.size(), 8u);
  Request stopped = plain;
  stopped.stop = {whole.substr(4, 3)};
  const Answer answer = tiny.answer(stopped);
  EXPECT_EQ(answer.finish.reason, Finish::Reason::kStopText);
  EXPECT_EQ(answer.finish.stop_text, stopped.stop[0]);
  EXPECT_EQ(answer.text, whole.substr(0, whole.find(stopped.stop[0])));
}

Request long_request() { return {.prompt = {70, 71, 72}, .max_new_tokens = 90, .ignore_end = true}; }

TEST(Engine, RefusesWhatFindsNoPlaceAndWhatCannotBe) {
  TinyEngine tiny(Family::kLlama);
  tiny.options.max_running = 1;
  tiny.options.max_waiting = 0;
  const auto reason = [&](Request request) {
    const auto outcome = tiny.engine().submit(std::move(request), std::make_shared<KeepingSink>());
    return std::holds_alternative<Refusal>(outcome) ? static_cast<int>(std::get<Refusal>(outcome).reason) : -1;
  };
  const auto code = [](Refusal::Reason reason) { return static_cast<int>(reason); };
  EXPECT_EQ(reason({.prompt = {}}), code(Refusal::Reason::kBadRequest));
  EXPECT_EQ(reason({.prompt = {5000}}), code(Refusal::Reason::kBadRequest));
  EXPECT_EQ(reason({.prompt = {5}, .sampling = {.temperature = -1}}), code(Refusal::Reason::kBadRequest));
  EXPECT_EQ(reason({.prompt = {5}, .sampling = {.temperature = std::nan("")}}), code(Refusal::Reason::kBadRequest));
  EXPECT_EQ(reason({.prompt = std::vector<TokenId>(100, 5)}), code(Refusal::Reason::kTooLong));
  EXPECT_EQ(reason({.prompt = {5}, .model = {.kind = ModelChoice::Kind::kExpert, .name = "none"}}),
            code(Refusal::Reason::kUnknownModel));
  int queued = 0, refused = 0;
  for (int i = 0; i < 200; ++i) ++(reason(long_request()) == code(Refusal::Reason::kQueueFull) ? refused : queued);
  EXPECT_GT(refused, 0);
  EXPECT_GT(queued, 0);
  tiny.engine().stop(std::chrono::milliseconds(0));
  EXPECT_EQ(reason(long_request()), code(Refusal::Reason::kStopping));
}

TEST(Engine, CountsAnEncodersSourceInTheCache) {
  TinyEngine tiny(Family::kT5);
  tiny.options.cache_bytes = 7 * 16 * KvPool::bytes_per_token(tiny.engine().config(), at::TensorOptions());
  tiny.made = nullptr;
  const auto long_source = [](std::size_t count) {
    return Request{.prompt = std::vector<TokenId>(count, 5), .max_new_tokens = 200, .ignore_end = true};
  };
  // Seven pages: one of the source leaves six for the answer, six leave one, seven none.
  EXPECT_EQ(tiny.answer(long_source(16)).tokens.size(), 6u * 16 - 1);
  EXPECT_EQ(tiny.answer(long_source(96)).tokens.size(), 15u);
  const auto outcome = tiny.engine().submit(long_source(97), std::make_shared<KeepingSink>());
  ASSERT_TRUE(std::holds_alternative<Refusal>(outcome));
  EXPECT_EQ(std::get<Refusal>(outcome).reason, Refusal::Reason::kTooLong);
  // Two sources that fit one after the other only.
  const auto first = tiny.submit(long_source(64)), second = tiny.submit(long_source(64));
  EXPECT_EQ(first->wait().tokens, second->wait().tokens);
  EXPECT_EQ(first->wait().tokens.size(), 3u * 16 - 1);
  tiny.engine().stop(std::chrono::milliseconds(0));
  EXPECT_EQ(tiny.engine().stats().pages_used, 0);
}

TEST(Engine, ACancelledRequestEndsOnceAndGivesItsPagesBack) {
  TinyEngine tiny(Family::kLlama);
  tiny.options.max_running = 1;
  tiny.options.max_waiting = 100;
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 20; ++i) sinks.push_back(tiny.submit(long_request()));
  sinks[0]->wait_for_tokens(1);
  tiny.engine().cancel(sinks[0]->id);   // runs
  tiny.engine().cancel(sinks[19]->id);  // waits
  tiny.engine().cancel(sinks[19]->id);
  tiny.engine().cancel(12345);
  EXPECT_EQ(sinks[19]->wait().finish.reason, Finish::Reason::kCancelled);
  for (int i = 1; i < 19; ++i) EXPECT_EQ(sinks[i]->wait().tokens.size(), 90u);
  tiny.engine().stop(std::chrono::seconds(60));
  for (const auto& sink : sinks) EXPECT_EQ(sink->num_finishes(), 1);
  EXPECT_EQ(tiny.engine().stats().pages_used, 0);
}

TEST(Engine, StoppingCancelsWhatIsLeftAtTheDeadline) {
  TinyEngine tiny(Family::kLlama);
  tiny.options.max_running = 1;
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 50; ++i) sinks.push_back(tiny.submit(long_request()));
  tiny.engine().stop(std::chrono::milliseconds(0));
  for (const auto& sink : sinks) EXPECT_EQ(sink->num_finishes(), 1);
  EXPECT_EQ(sinks.back()->wait().finish.reason, Finish::Reason::kCancelled);
}

TEST(Engine, AnExpertAddedOnDiskIsThereAfterAReload) {
  TinyEngine tiny(Family::kLlama);
  const ModelChoice added{.kind = ModelChoice::Kind::kExpert, .name = "four"};
  const ModelChoice routed{.kind = ModelChoice::Kind::kRouter, .router = default_router("phatgoose")};
  EXPECT_THROW(tiny.submit({.prompt = {5}, .model = added}), Failure);
  const auto before = tiny.submit({.prompt = {5, 6, 7}, .model = routed, .max_new_tokens = 80, .ignore_end = true});
  const std::size_t num_models = tiny.engine().models().size();
  testing::put_tiny_expert(*tiny.env, "four", 4);
  tiny.engine().reload();
  EXPECT_EQ(tiny.engine().models().size(), num_models + 1);
  EXPECT_EQ(tiny.answer({.prompt = {5, 6, 7}, .model = added, .max_new_tokens = 10}).tokens,
            decoded_alone(tiny, added, {5, 6, 7}, {.max_new_tokens = 10}).tokens);
  EXPECT_EQ(before->wait().tokens.size(), 80u);
}

TEST(Engine, AnExpertThatWasReplacedAnswersAsOnAColdServer) {
  const std::vector<TokenId> prompt = testing::tiny_prompts()[2];
  for (const ModelChoice& choice :
       {ModelChoice{.kind = ModelChoice::Kind::kExpert, .name = "two"},
        ModelChoice{.kind = ModelChoice::Kind::kRouter, .router = default_router("phatgoose")}}) {
    TinyEngine tiny(Family::kLlama);
    const auto ask = [&] { return tiny.answer({.prompt = prompt, .model = choice, .max_new_tokens = 20}); };
    const std::vector<TokenId> before = ask().tokens;
    EXPECT_GT(ask().finish.reused_tokens, 0);
    Library library = or_throw(open_library(*tiny.env, "pool"));
    or_throw(remove_expert(*tiny.env, library, "two"));
    or_throw(tiny.env->remove_tree("two"));
    testing::put_tiny_expert(*tiny.env, "two", 77);
    tiny.engine().reload();
    const Answer after = ask();
    EXPECT_EQ(after.finish.reused_tokens, 0);
    EXPECT_NE(after.tokens, before);
    EXPECT_EQ(after.tokens, decoded_alone(tiny, choice, prompt, {.max_new_tokens = 20}).tokens);
  }
}

// For the address and thread sanitizers above all.
TEST(Engine, ReloadsUnderLoadWithoutHarm) {
  TinyEngine tiny(Family::kLlama);
  tiny.engine();
  std::vector<std::thread> clients;
  std::atomic<int> num_answers = 0;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&tiny, &num_answers, i] {
      for (int round = 0; round < 12; ++round) {
        const auto sink = std::make_shared<KeepingSink>();
        const ModelChoice choice = testing::tiny_choices()[static_cast<std::size_t>(i + round) % 4];
        const auto outcome = tiny.engine().submit(
            {.prompt = testing::tiny_prompts()[2], .model = choice, .max_new_tokens = 15, .ignore_end = true}, sink);
        if (round % 5 == 4) tiny.engine().cancel(std::get<RequestId>(outcome));
        num_answers += sink->wait().finish.failure.empty();
      }
    });
  }
  for (int i = 0; i < 6; ++i) {
    const std::string name = concat("more", i);
    testing::put_tiny_expert(*tiny.env, name, static_cast<std::uint64_t>(20 + i));
    tiny.engine().reload();
    Library library = or_throw(open_library(*tiny.env, "pool"));
    if (i % 2 == 1) or_throw(remove_expert(*tiny.env, library, name));
    tiny.engine().reload();
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_answers, 48);
  tiny.engine().stop(std::chrono::milliseconds(0));
  EXPECT_EQ(tiny.engine().stats().pages_used, 0);
}

TEST(Engine, EmbedsByTheMeanOfTheLastHiddenStates) {
  TinyEngine tiny(Family::kLlama);
  tiny.options.prefill_tokens = 16;
  const std::vector<TokenId> prompt = testing::tiny_prompts()[2];
  const Answer answer = tiny.answer({.task = Request::Task::kEmbed, .prompt = prompt});
  const LoadedModel model = load_model(*tiny.env, {.base = "base"});
  const c10::InferenceMode inference;
  ForwardState state;
  const at::Tensor mean = model.backbone->forward(pack({{.tokens = prompt}}, at::kCPU), nullptr, state).mean(0);
  ASSERT_EQ(answer.finish.embedding.size(), static_cast<std::size_t>(mean.size(0)));
  for (std::int64_t d = 0; d < mean.size(0); ++d) {
    EXPECT_NEAR(answer.finish.embedding[static_cast<std::size_t>(d)], mean[d].item<float>(), 1e-5);
  }
}

// Whoever could see that a prompt was known could guess what others ask.
TEST(Engine, ReusesPromptsWithinOneScopeOnly) {
  TinyEngine tiny(Family::kLlama);
  const auto reused = [&](const std::string& scope) {
    const Answer answer =
        tiny.answer({.prompt = testing::tiny_prompts()[2], .prefix_scope = scope, .max_new_tokens = 3});
    return answer.finish.reused_tokens;
  };
  EXPECT_EQ(reused("a"), 0);
  EXPECT_EQ(reused("b"), 0);
  EXPECT_EQ(reused("a"), 32);
  EXPECT_EQ(reused("b"), 32);
  EXPECT_EQ(reused(""), 0);
}

TEST(PrefixCache, FindsWholePagesUnderTheSameModelAndForgetsTheOldest) {
  BackboneConfig config;
  config.num_layers = config.num_kv_heads = config.d_head = 1;
  KvPool pool(config, at::TensorOptions(), 16, 3);
  PrefixCache prefixes(16);
  std::vector<TokenId> tokens(40, 7);
  std::vector<std::shared_ptr<const KvPage>> pages = {pool.take(), pool.take(), pool.take()};
  EXPECT_EQ(pool.take(), nullptr);
  const PrefixOwner owner{1, "a"};
  prefixes.insert(owner, tokens, pages);
  EXPECT_EQ(prefixes.size(), 2);  // the third page is not full
  EXPECT_EQ(prefixes.find(owner, tokens), (std::vector{pages[0], pages[1]}));
  EXPECT_TRUE(prefixes.find({2, "a"}, tokens).empty());
  EXPECT_TRUE(prefixes.find({1, "b"}, tokens).empty());
  EXPECT_FALSE(prefixes.evict());  // in use
  pages.clear();
  EXPECT_EQ(prefixes.num_idle(), 2);
  tokens[20] = 8;
  EXPECT_EQ(prefixes.find(owner, tokens).size(), 1u);
  EXPECT_TRUE(prefixes.evict());  // the second page: used less lately, and nothing follows it
  tokens[20] = 7;
  EXPECT_EQ(prefixes.find(owner, tokens).size(), 1u);
  EXPECT_TRUE(prefixes.evict());
  EXPECT_FALSE(prefixes.evict());
  EXPECT_EQ(pool.num_used(), 0);
}

}  // namespace
}  // namespace skein
