#include "skein/serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "skein/base/concat.h"
#include "skein/serve/fake_engine.h"
#include "skein/serve/openapi.h"

namespace skein {
namespace {

using testing::FakeEngine;
using testing::FakeExchange;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kChat[] = R"({"messages": [{"role": "user", "content": "hi"}]})";

class ServiceTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeExchange> send(const std::string& method, const std::string& path, const std::string& body = "",
                                     HttpHeaders headers = {{"content-type", "application/json"}}) {
    HttpRequest request{.method = method, .headers = std::move(headers), .body = body, .remote = "10.0.0.1"};
    const std::size_t question = path.find('?');
    request.path = path.substr(0, question);
    auto exchange = std::make_shared<FakeExchange>(std::move(request));
    if (service_ == nullptr) service_ = std::make_unique<Service>(engine_, pool_, options_);
    service_->handle(exchange);
    return exchange;
  }
  Json json(const FakeExchange& exchange) {
    Result<Json> parsed = parse_json(exchange.answer.body, "answer");
    EXPECT_TRUE(parsed.ok()) << exchange.answer.body;
    return parsed.ok() ? *parsed : Json();
  }
  // The events of a stream; the last, [DONE], is checked and left out.
  std::vector<Json> events(const FakeExchange& exchange) {
    std::vector<Json> events;
    std::string_view rest = exchange.answer.body;
    EXPECT_TRUE(rest.size() >= 14 && rest.substr(rest.size() - 14) == "data: [DONE]\n\n") << rest;
    while (rest.substr(0, 6) == "data: " && rest != "data: [DONE]\n\n") {
      const std::size_t end = rest.find("\n\n");
      events.push_back(*parse_json(std::string(rest.substr(6, end - 6)), "event"));
      rest.remove_prefix(end + 2);
    }
    return events;
  }
  ApiKeys keys(const std::string& text) {
    const auto env = make_memory_env();
    EXPECT_TRUE(env->make_folders("/k").ok() && write_text_atomically(*env, "/k/k", text).ok());
    return *ApiKeys::read(*env, "/k/k");
  }

  FakeEngine engine_;
  ServedPool pool_{real_env(), {}};
  ServiceOptions options_{.base_name = "tiny", .host = "0.0.0.0", .log = LogKind::kNone};
  std::unique_ptr<Service> service_;
};

TEST_F(ServiceTest, ListsTheBaseExpertsAndRouters) {
  const Json list = json(*send("GET", "/v1/models"));
  std::vector<std::string> ids;
  for (const Json& model : list["data"]) ids.push_back(model["id"]);
  EXPECT_EQ(ids, (std::vector<std::string>{"tiny", "mood", "unit", "skein/phatgoose"}));
  EXPECT_EQ(json(*send("GET", "/v1/models/skein%2Fphatgoose"))["id"], "skein/phatgoose");
  EXPECT_EQ(json(*send("GET", "/v1/models/skein/phatgoose"))["kind"], "router");
  EXPECT_EQ(send("GET", "/v1/models/nobody")->answer.status, 404);
}

TEST_F(ServiceTest, AnswersAChat) {
  const auto exchange = send("POST", "/v1/chat/completions", kChat);
  ASSERT_EQ(exchange->answer.status, 200) << exchange->answer.body;
  const Json answer = json(*exchange);
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "hello");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 5);
  // "[user]hi<eos>[assistant]" as the tiny tokenizer's template and alphabet have it.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], static_cast<std::int64_t>(engine_.requests[0].prompt.size()));
  EXPECT_EQ(engine_.requests[0].input_text, "hi");
}

TEST_F(ServiceTest, StreamsAChat) {
  const auto exchange = send("POST", "/v1/chat/completions",
                             R"({"messages": [{"role": "user", "content": "hi"}], "stream": true,
                                 "stream_options": {"include_usage": true}})");
  ASSERT_TRUE(exchange->is_stream && exchange->has_ended);
  EXPECT_THAT(exchange->answer.content_type, HasSubstr("text/event-stream"));
  std::string text;
  const auto all = events(*exchange);
  ASSERT_GE(all.size(), 2U);
  for (const Json& event : all) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    for (const Json& choice : event["choices"]) text += choice["delta"].value("content", "");
  }
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(all.front()["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(all[all.size() - 2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(all.back()["usage"]["completion_tokens"], 5);
}

TEST_F(ServiceTest, CompletesEveryPromptNTimesWithEchoAndLogprobs) {
  const Json answer =
      json(*send("POST", "/v1/completions",
                 R"({"prompt": ["ab", "c"], "n": 2, "echo": true, "logprobs": 1, "max_tokens": 2, "seed": 5})"));
  ASSERT_EQ(answer["choices"].size(), 4U);
  EXPECT_EQ(answer["choices"][0]["text"], "abhe");
  EXPECT_EQ(answer["choices"][3]["text"], "che");
  EXPECT_EQ(answer["choices"][3]["finish_reason"], "length");
  const Json& logprobs = answer["choices"][2]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json({"c", "h", "e"}));
  EXPECT_EQ(logprobs["token_logprobs"], Json({nullptr, -0.5, -0.5}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 1, 2}));
  EXPECT_EQ(logprobs["top_logprobs"][1]["z"], -1.5);
  // The prompts' tokens count once, whatever n.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 8);
  EXPECT_EQ(engine_.requests[0].sampling.seed, 5U);
  EXPECT_NE(engine_.requests[0].sampling.seed, engine_.requests[1].sampling.seed);
}

TEST_F(ServiceTest, ShowsLogprobsOfAChatWithTheirBytes) {
  const Json answer =
      json(*send("POST", "/v1/chat/completions",
                 R"({"messages": [{"role": "user", "content": "hi"}], "logprobs": true, "top_logprobs": 2})"));
  const Json& token = answer["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(token["token"], "h");
  EXPECT_EQ(token["bytes"], Json({104}));
  EXPECT_EQ(token["top_logprobs"][1]["token"], "z");
}

TEST_F(ServiceTest, TracesWhoWasChosen) {
  const Json answer =
      json(*send("POST", "/v1/trace", R"({"model": "skein/phatgoose", "prompt": "a", "max_tokens": 2})"));
  EXPECT_EQ(answer["object"], "trace");
  EXPECT_EQ(answer["text"], "he");
  const Json& trace = answer["trace"];
  EXPECT_EQ(trace["experts"], Json({"mood", "unit"}));
  EXPECT_EQ(trace["slot_sets"][0][0]["module"], "model.layers.0.self_attn.q_proj");
  ASSERT_EQ(trace["tokens"].size(), 3U);
  EXPECT_EQ(trace["tokens"][0]["part"], "prompt");
  EXPECT_EQ(trace["tokens"][2]["part"], "answer");
  EXPECT_EQ(trace["tokens"][2]["position"], 2);
  EXPECT_EQ(trace["tokens"][2]["text"], "e");
  EXPECT_EQ(trace["tokens"][2]["experts"], Json({1, 0}));
  EXPECT_EQ(trace["tokens"][2]["weights"], Json({0.75, 0.25}));
  EXPECT_EQ(send("POST", "/v1/trace", R"({"prompt": "a"})")->answer.status, 400);  // the base has no experts
}

TEST_F(ServiceTest, ChangesTheRouterForOneRequest) {
  const auto ask = [&](const std::string& model, const std::string& router) {
    return send("POST", "/v1/completions",
                concat(R"({"prompt": "a", "model": ")", model, R"(", "router": )", router, "}"))
        ->answer;
  };
  EXPECT_EQ(ask("skein/phatgoose", R"({"top_k": 1, "without": ["mood"]})").status, 200);
  EXPECT_EQ(engine_.requests.back().model.router.top_k, 1);
  EXPECT_EQ(engine_.requests.back().model.router.without, std::vector<std::string>{"mood"});
  EXPECT_THAT(ask("skein/phatgoose", R"({"without": ["nobody"]})").body, HasSubstr("nobody"));
  EXPECT_EQ(ask("mood", R"({"top_k": 1})").status, 400);
}

TEST_F(ServiceTest, EmbedsTexts) {
  const Json answer = json(*send("POST", "/v1/embeddings", R"({"input": ["a", "b"]})"));
  EXPECT_EQ(answer["data"][1]["embedding"], Json({1.0, 2.0, 3.0, 4.0}));
  // 1.0F, 2.0F, 3.0F, 4.0F, little endian.
  const Json packed = json(*send("POST", "/v1/embeddings", R"({"input": "a", "encoding_format": "base64"})"));
  EXPECT_EQ(packed["data"][0]["embedding"], "AACAPwAAAEAAAEBAAACAQA==");
}

TEST_F(ServiceTest, AnswersErrorsInTheShapeOfTheApi) {
  const auto check = [&](const FakeExchange& exchange, int status, const std::string& code) {
    EXPECT_EQ(exchange.answer.status, status) << exchange.answer.body;
    const Json error = json(exchange)["error"];
    EXPECT_TRUE(error["message"].is_string() && error["type"].is_string());
    EXPECT_EQ(error["code"], code);
  };
  check(*send("POST", "/v1/completions", "{"), 400, "invalid_json");
  check(*send("POST", "/v1/completions", R"({"prompt": NaN})"), 400, "invalid_json");
  check(*send("POST", "/v1/completions", std::string(100'000, '[')), 400, "invalid_json");
  check(*send("POST", "/v1/completions", "{\"prompt\": \"\xff\"}"), 400, "invalid_json");
  check(*send("POST", "/v1/completions", R"({"prompt": "a", "prompt": "b"})"), 400, "invalid_json");
  check(*send("POST", "/v1/completions", R"({"prompt": "a", "model": "moot"})"), 404, "model_not_found");
  check(*send("POST", "/v1/completions", "{}", {{"content-type", "text/plain"}}), 415, "unsupported_media_type");
  check(*send("GET", "/v1/completions"), 405, "method_not_allowed");
  check(*send("GET", "/v1"), 404, "not_found");
  check(*send("POST", "/v1/load_lora_adapter", R"({"lora_name": "a", "lora_path": "b"})"), 403,
        "adapter_loading_disabled");
  engine_.refusal = Refusal{Refusal::Reason::kQueueFull, "full"};
  const auto full = send("POST", "/v1/chat/completions", kChat);
  check(*full, 429, "queue_full");
  EXPECT_THAT(full->answer.headers, ::testing::Contains(std::pair<std::string, std::string>("Retry-After", "1")));
  engine_.refusal = Refusal{Refusal::Reason::kStopping, "stopping"};
  check(*send("POST", "/v1/chat/completions", kChat), 503, "stopping");
}

TEST_F(ServiceTest, AsksForAKeyOnEveryRouteOfTheApiHoweverItIsSpelled) {
  options_.keys = keys("a-good-key\n");
  const HttpHeaders wrong = {{"content-type", "application/json"}, {"authorization", "Bearer a-good-kez"}};
  const HttpHeaders good = {{"content-type", "application/json"}, {"authorization", "Bearer a-good-key"}};
  for (const char* path : {"/v1/models", "/v1/models/tiny", "/metrics"}) {
    EXPECT_EQ(send("GET", path)->answer.status, 401) << path;
    EXPECT_EQ(send("HEAD", path, "", wrong)->answer.status, 401) << path;
    EXPECT_EQ(send("GET", path, "", good)->answer.status, 200) << path;
  }
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/trace",
                           "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}) {
    EXPECT_EQ(send("POST", path, kChat)->answer.status, 401) << path;
  }
  // Spellings that a router of another kind might take for an open or a guarded path: none answers 200.
  for (const char* path :
       {"//v1/models", "/v1//models", "/health/../v1/models", "/v1/models/", "/V1/models", "/v1/models%00",
        "http://localhost/v1/models", "/page/../v1/models", "/v1/models;/health", "/%76%31/models", "*"}) {
    EXPECT_NE(send("GET", path)->answer.status, 200) << path;
  }
  HttpHeaders overridden = {{"x-http-method-override", "GET"}, {"content-type", "application/json"}};
  EXPECT_NE(send("POST", "/v1/models", "", overridden)->answer.status, 200);
  for (const char* path : {"/", "/health", "/ready", "/openapi.json"})
    EXPECT_EQ(send("GET", path)->answer.status, 200) << path;
  // Names of models are for those with a key.
  EXPECT_THAT(send("GET", "/openapi.json")->answer.body, Not(HasSubstr("mood")));
}

TEST_F(ServiceTest, EachKeyHasPromptsOfItsOwn) {
  const auto scope = [&](const std::string& key, const std::string& salt) {
    Json body = Json::parse(kChat);
    if (!salt.empty()) body["cache_salt"] = salt;
    const HttpHeaders headers = {{"content-type", "application/json"}, {"authorization", "Bearer " + key}};
    EXPECT_EQ(send("POST", "/v1/chat/completions", body.dump(), headers)->answer.status, 200);
    return engine_.requests.back().prefix_scope;
  };
  EXPECT_EQ(scope("", ""), "");  // without keys everybody is one
  options_.keys = keys("first-key\nsecond-key\n");
  service_ = nullptr;
  std::vector<std::string> scopes = {scope("first-key", ""),   scope("second-key", ""),     scope("first-key", "a"),
                                     scope("second-key", "a"), scope("first-key", "key 1"), scope("first-key", "b")};
  EXPECT_EQ(scope("first-key", "a"), scopes[2]);
  std::sort(scopes.begin(), scopes.end());
  EXPECT_EQ(std::adjacent_find(scopes.begin(), scopes.end()), scopes.end());
}

TEST_F(ServiceTest, AnswersToNamesOfItsOwnMachineOnLoopback) {
  options_.host = "127.0.0.1";
  EXPECT_EQ(send("GET", "/v1/models", "", {{"host", "evil.example"}})->answer.status, 403);
  EXPECT_EQ(send("GET", "/v1/models", "", {{"host", "127.0.0.1:8000"}})->answer.status, 200);
}

TEST_F(ServiceTest, CancelsWhatNobodyReads) {
  engine_.ends_by_itself = false;
  const auto exchange = send("POST", "/v1/chat/completions",
                             R"({"messages": [{"role": "user", "content": "hi"}], "stream": true, "n": 2})");
  EXPECT_FALSE(exchange->has_ended);
  ASSERT_TRUE(exchange->gone);
  exchange->gone();
  EXPECT_EQ(engine_.cancelled, (std::vector<RequestId>{1, 2}));
}

TEST_F(ServiceTest, EndsAnswersThatTakeTooLong) {
  engine_.ends_by_itself = false;
  options_.answer_timeout = std::chrono::milliseconds(-1);
  const auto exchange = send("POST", "/v1/chat/completions", kChat);
  EXPECT_EQ(exchange->answer.status, 0);
  service_->look_after();
  EXPECT_EQ(exchange->answer.status, 504);
}

TEST_F(ServiceTest, SaysSoWhenAnAnswerFails) {
  engine_.ends_by_itself = false;
  const auto whole = send("POST", "/v1/chat/completions", kChat);
  engine_.end(1, {.reason = Finish::Reason::kFailed, .failure = "no memory"});
  EXPECT_EQ(whole->answer.status, 500);
  EXPECT_THAT(whole->answer.body, HasSubstr("no memory"));
  const auto stream = send("POST", "/v1/completions", R"({"prompt": "a", "stream": true})");
  engine_.end(2, {.reason = Finish::Reason::kFailed, .failure = "no memory"});
  EXPECT_TRUE(stream->has_ended);
  EXPECT_EQ(events(*stream).back()["error"]["message"], "no memory");
}

TEST_F(ServiceTest, CountsInPrometheusFormat) {
  send("POST", "/v1/chat/completions", kChat);
  send("GET", "/secret-path-of-a-client");
  const std::string text = send("GET", "/metrics")->answer.body;
  EXPECT_THAT(text, HasSubstr("skein_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1"));
  EXPECT_THAT(text, HasSubstr("skein_generated_tokens_total{model=\"tiny\"} 5"));
  EXPECT_THAT(text, HasSubstr("skein_time_to_first_token_seconds_count 1"));
  EXPECT_THAT(text, Not(HasSubstr("secret-path")));
}

TEST_F(ServiceTest, ServesThePageUnderAStrictPolicy) {
  const auto page = send("GET", "/");
  EXPECT_THAT(page->answer.body, HasSubstr("<!doctype html>"));
  std::string policy;
  for (const auto& [name, value] : page->answer.headers) policy += name == "Content-Security-Policy" ? value : "";
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  // Every file that the page names is there, and none holds what the policy forbids or what would read texts as HTML.
  for (const char* name : {"app.js", "api.js", "chat.js", "colours.js", "history.js", "settings.js", "trace.js",
                           "style.css", "icon.svg"}) {
    const auto file = send("GET", concat("/page/", name));
    EXPECT_EQ(file->answer.status, 200) << name;
    for (const char* word :
         {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"}) {
      EXPECT_THAT(file->answer.body, Not(HasSubstr(word))) << name;
    }
  }
  for (const char* path : {"/page/", "/page/../app.js", "/page//app.js", "/page/none.js"}) {
    EXPECT_EQ(send("GET", path)->answer.status, 404) << path;
  }
}

TEST_F(ServiceTest, DescribesEveryRoute) {
  const Json document = json(*send("GET", "/openapi.json"));
  EXPECT_EQ(document["components"]["schemas"]["MaxTokens"]["maximum"], options_.limits.max_tokens);
  for (const auto& [path, methods] : document["paths"].items()) {
    const std::string asked = path == "/v1/models/{model}" ? "/v1/models/tiny" : path;
    const std::string method = methods.contains("get") ? "GET" : "POST";
    const int status = send(method, asked, "{}")->answer.status;
    EXPECT_TRUE(status != 404 && status != 405) << path << " " << status;
  }
}

TEST_F(ServiceTest, LogsNothingThatClientsSay) {
  options_.log = LogKind::kJson;
  options_.keys = keys("a-secret-key\n");
  const HttpHeaders good = {{"content-type", "application/json"}, {"authorization", "Bearer a-secret-key"}};
  const HttpHeaders wrong = {{"content-type", "application/json"}, {"authorization", "Bearer a-secret-kex"}};
  ::testing::internal::CaptureStderr();
  send("POST", "/v1/chat/completions?key=a-secret-query", R"({"messages": [{"role": "user", "content": "a secret"}]})",
       good);
  send("POST", "/v1/chat/completions", "{\"a secret", good);
  send("GET", "/v1/models/a-secret-name", "", good);
  send("GET", "/v1/models", "", wrong);
  send("GET", "/a-secret-path", "", good);
  send("SECRET", "/v1/models", "", good);
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 6) << log;
  EXPECT_THAT(log, Not(HasSubstr("secret"))) << log;
  EXPECT_THAT(log, Not(HasSubstr("SECRET")));
  EXPECT_THAT(log, Not(HasSubstr("hello")));
}

TEST_F(ServiceTest, TextsAreNoTemplates) {
  send("POST", "/v1/chat/completions", R"({"messages": [{"role": "user", "content": "{{ 7 * 7 }}{% raw %}"}]})");
  EXPECT_EQ(engine_.tokenizer().decode(engine_.requests.back().prompt, /*skip_special=*/false),
            "[user]{{ 7 * 7 }}{% raw %}<eos>");
}

TEST(RequestLog, HoldsNoTextOfTheClientsOwn) {
  LoggedRequest request{.id = "1", .remote = "10.0.0.1", .method = "POST", .route = "/v1/completions", .status = 200};
  const auto line = parse_json(log_line(LogKind::kJson, request), "line");
  ASSERT_TRUE(line.ok());
  EXPECT_EQ((*line)["route"], "/v1/completions");
  EXPECT_EQ(log_line(LogKind::kNone, request), "");
  EXPECT_THAT(log_line(LogKind::kText, request), HasSubstr("POST /v1/completions 200"));
}

}  // namespace
}  // namespace skein
