// For tests of what stands in front of the engine: an engine without a model, which answers every request with one
// text, and an exchange that keeps its answer.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "skein/infer/tiny_model.h"
#include "skein/serve/engine.h"
#include "skein/serve/http_exchange.h"

namespace skein::testing {

class FakeEngine : public Engine {
 public:
  std::string text = "hello";      // what every answer is, one byte a token
  bool ends_by_itself = true;      // false: answers stay open after their text until cancelled
  std::optional<Refusal> refusal;  // for every request
  std::vector<std::string> experts = {"mood", "unit"};
  std::vector<Request> requests;  // what was submitted
  std::vector<RequestId> cancelled;
  int num_reloads = 0;

  FakeEngine() {
    const std::string tokenizer_config = R"({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template":
        "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] + '<eos>' }}{% endfor %}"})";
    tokenizer_ = or_throw(tokenizer_from_json(tiny_tokenizer_json().dump(), tokenizer_config, "tiny"));
    config_.d_model = 4;
    config_.max_positions = 128;
    slots_ = {{.module = "model.layers.0.self_attn.q_proj", .kind = "q_proj"}};
  }

  std::variant<RequestId, Refusal> submit(Request request, std::shared_ptr<RequestSink> sink) override {
    if (refusal) return *refusal;
    const auto id = static_cast<RequestId>(requests.size() + 1);
    requests.push_back(request);
    open_[id] = sink;
    if (request.trace || request.score_prompt) sink->on_prompt_tokens(prompt_tokens(request));
    Finish finish{.prompt_tokens = static_cast<std::int64_t>(request.prompt.size())};
    if (request.task == Request::Task::kEmbed) {
      finish.embedding = {1, 2, 3, 4};
    } else {
      for (const char c : text) {
        if (finish.generated_tokens >= request.max_new_tokens) finish.reason = Finish::Reason::kLength;
        if (finish.reason == Finish::Reason::kLength) break;
        GeneratedToken token{.token = 3 + static_cast<unsigned char>(c), .text = std::string(1, c)};
        if (request.num_logprobs >= 0) token.logprobs = TokenLogprobs{-0.5F, {{token.token, -0.5F}, {3 + 'z', -1.5F}}};
        sink->on_token(std::move(token));
        ++finish.generated_tokens;
        if (request.trace) sink->on_trace(trace());
      }
    }
    if (ends_by_itself) end(id, finish);
    return id;
  }
  void cancel(RequestId id) override {
    cancelled.push_back(id);
    end(id, {.reason = Finish::Reason::kCancelled});
  }
  void end(RequestId id, Finish finish) {
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    const auto sink = found->second;
    open_.erase(found);
    sink->on_finish(std::move(finish));
  }

  void reload() override { ++num_reloads; }
  std::vector<ModelName> models() const override {
    std::vector<ModelName> models = {{.description = "the base"}};
    for (const std::string& name : experts) {
      models.push_back({.choice = {.kind = ModelChoice::Kind::kExpert, .name = name}, .experts = {name}});
    }
    ModelChoice router{.kind = ModelChoice::Kind::kRouter};
    router.router.kind = "phatgoose";
    models.push_back({.choice = router, .description = "a router", .experts = experts});
    return models;
  }
  void stop(std::chrono::milliseconds) override {
    while (!open_.empty()) end(open_.begin()->first, {.reason = Finish::Reason::kCancelled});
  }
  EngineStats stats() const override { return {.running = static_cast<std::int64_t>(open_.size())}; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const BackboneConfig& config() const override { return config_; }
  const std::vector<SlotName>& backbone_slots() const override { return slots_; }
  const ComputeOptions& compute() const override { return compute_; }

 private:
  static TokenTrace trace() { return {.k = 2, .slots = {0}, .ids = {1, 0}, .weights = {0.75F, 0.25F}}; }
  static std::vector<PromptToken> prompt_tokens(const Request& request) {
    std::vector<PromptToken> tokens;
    for (std::size_t i = 0; i < request.prompt.size(); ++i) {
      PromptToken token{.position = static_cast<std::int64_t>(i), .token = request.prompt[i]};
      if (request.trace) token.trace = trace();
      if (request.score_prompt && i > 0) token.logprobs = TokenLogprobs{-1.0F, {}};
      tokens.push_back(std::move(token));
    }
    return tokens;
  }

  std::map<RequestId, std::shared_ptr<RequestSink>> open_;
  std::unique_ptr<Tokenizer> tokenizer_;
  BackboneConfig config_;
  std::vector<SlotName> slots_;
  ComputeOptions compute_;
};

// Runs the handlers' work at once, on the caller's thread.
class FakeExchange : public HttpExchange {
 public:
  explicit FakeExchange(HttpRequest request) : request_(std::move(request)) {}
  const HttpRequest& request() const override { return request_; }
  void respond(HttpResponse response) override { answer = std::move(response); }
  void start_stream(HttpResponse head) override {
    answer = std::move(head);
    is_stream = true;
  }
  void send(std::string piece) override { answer.body += piece; }
  void end_stream() override { has_ended = true; }
  void run_soon(std::function<void()> work) override { work(); }
  void on_gone(std::function<void()> callback) override { gone = std::move(callback); }

  HttpResponse answer{.status = 0};
  bool is_stream = false, has_ended = false;
  std::function<void()> gone;

 private:
  const HttpRequest request_;
};

}  // namespace skein::testing
