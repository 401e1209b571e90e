#include "skein/serve/generation.h"

#include <random>

#include "skein/base/concat.h"

namespace skein {
namespace {

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::uint64_t drawn_seed() {
  thread_local std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32 | device();
}

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

ApiError refusal_error(const Refusal& refusal) {
  using Reason = Refusal::Reason;
  switch (refusal.reason) {
    case Reason::kQueueFull:
      return {.status = 429,
              .message = refusal.message,
              .type = "rate_limit_error",
              .code = "queue_full",
              .retry_after_s = 1};
    case Reason::kStopping:
      return {
          .status = 503, .message = refusal.message, .type = "server_error", .code = "stopping", .retry_after_s = 5};
    case Reason::kUnknownModel:
      return {.status = 404, .message = refusal.message, .code = "model_not_found", .param = "model"};
    case Reason::kTooLong:
      return {.message = refusal.message, .code = "context_length_exceeded", .param = "messages"};
    case Reason::kBadRequest:
      break;
  }
  return {.message = refusal.message};
}

// --- generation ---

class Generation::Sink : public RequestSink {
 public:
  Sink(std::shared_ptr<Generation> generation, int choice_idx)
      : generation_(std::move(generation)), choice_idx_(choice_idx) {}
  void on_prompt_tokens(std::vector<PromptToken> tokens) override { generation_->note(choice_idx_, std::move(tokens)); }
  void on_token(GeneratedToken token) override { generation_->note(choice_idx_, std::move(token)); }
  void on_trace(TokenTrace trace) override { generation_->note(choice_idx_, std::move(trace)); }
  void on_finish(Finish finish) override { generation_->note(choice_idx_, std::move(finish)); }

 private:
  const std::shared_ptr<Generation> generation_;
  const int choice_idx_;
};

Generation::Generation(GenerationSetting setting, GenerationRequest request)
    : setting_(std::move(setting)), request_(std::move(request)), created_(unix_seconds()) {}

void Generation::start(const std::vector<std::vector<TokenId>>& prompts, const std::vector<std::string>& prompt_texts) {
  choices_.resize(prompts.size() * static_cast<std::size_t>(request_.n));
  // The part in front has no line break, so that no salt can spell another client's scope.
  const std::string scope =
      request_.cache_salt.empty() ? setting_.prefix_scope : concat(setting_.prefix_scope, "\n", request_.cache_salt);
  const std::uint64_t seed = request_.seed ? *request_.seed : drawn_seed();
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const std::size_t prompt_idx = i / static_cast<std::size_t>(request_.n);
    Choice& choice = choices_[i];
    if (request_.echo) choice.echo = prompt_texts[prompt_idx];
    if (request_.trace) choice.trace = std::make_unique<TraceWriter>(setting_.engine, setting_.experts);
    Request wanted{.prompt = prompts[prompt_idx],
                   .input_text = prompt_texts[prompt_idx],
                   .client = setting_.client,
                   .prefix_scope = scope,
                   .model = setting_.choice,
                   .sampling = request_.sampling,
                   .stop = request_.stop,
                   .ignore_end = request_.ignore_end,
                   .num_logprobs = request_.num_logprobs,
                   .score_prompt = request_.echo && request_.num_logprobs >= 0,
                   .trace = request_.trace};
    if (request_.max_tokens) wanted.max_new_tokens = *request_.max_tokens;
    // Each of n draws anew; the first as if it were alone.
    wanted.sampling.seed = seed + 0x9e3779b97f4a7c15ULL * (i % static_cast<std::size_t>(request_.n));
    auto submitted =
        setting_.engine.submit(std::move(wanted), std::make_shared<Sink>(shared_from_this(), static_cast<int>(i)));
    if (const auto* refusal = std::get_if<Refusal>(&submitted)) {
      {
        const std::lock_guard lock(mutex_);
        is_abandoned_ = true;
      }
      for (const RequestId id : ids_) setting_.engine.cancel(id);
      throw ApiFailure(refusal_error(*refusal));
    }
    const std::lock_guard lock(mutex_);
    ids_.push_back(std::get<RequestId>(submitted));
  }
  if (request_.stream) {
    setting_.exchange->start_stream({.content_type = "text/event-stream; charset=utf-8",
                                     .headers = {{"Cache-Control", "no-store"}, {"X-Request-Id", setting_.id}}});
  }
  bool was_cancelled;
  {
    const std::lock_guard lock(mutex_);
    has_started_ = true;
    was_cancelled = !cancelled_why_.empty();
  }
  if (was_cancelled) {
    for (const RequestId id : ids_) setting_.engine.cancel(id);
  }
  schedule_drain();
}

void Generation::cancel(const std::string& why) {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    if (!cancelled_why_.empty()) return;
    cancelled_why_ = why;
    if (has_started_) ids = ids_;
  }
  for (const RequestId id : ids) setting_.engine.cancel(id);
}

void Generation::note(int choice_idx, Event event) {
  if (std::holds_alternative<GeneratedToken>(event)) {
    const auto now = std::chrono::steady_clock::now();
    Choice& choice = choices_[static_cast<std::size_t>(choice_idx)];  // this member is the engine's thread's alone
    if (!choice.last_token) {
      setting_.metrics.first_token(seconds_between(setting_.arrived, now));
    } else {
      setting_.metrics.token_gap(seconds_between(*choice.last_token, now));
    }
    choice.last_token = now;
  }
  {
    const std::lock_guard lock(mutex_);
    if (is_abandoned_) return;
    events_.emplace_back(choice_idx, std::move(event));
  }
  schedule_drain();
}

void Generation::schedule_drain() {
  {
    const std::lock_guard lock(mutex_);
    if (!has_started_ || is_draining_ || events_.empty()) return;
    is_draining_ = true;
  }
  setting_.exchange->run_soon([self = shared_from_this()] { self->drain(); });
}

void Generation::drain() {
  while (true) {
    std::deque<std::pair<int, Event>> events;
    {
      const std::lock_guard lock(mutex_);
      events.swap(events_);
      if (events.empty()) {
        is_draining_ = false;
        return;
      }
    }
    for (auto& [choice_idx, event] : events) take(choices_[static_cast<std::size_t>(choice_idx)], std::move(event));
    if (is_complete_) continue;
    if (request_.stream) {
      for (std::size_t i = 0; i < choices_.size(); ++i) send_news(static_cast<int>(i), choices_[i]);
    }
    bool all_ended = true;
    for (const Choice& choice : choices_) all_ended = all_ended && choice.finish.has_value();
    if (all_ended) complete();
  }
}

void Generation::take(Choice& choice, Event event) {
  if (auto* prompt = std::get_if<std::vector<PromptToken>>(&event)) {
    for (PromptToken& token : *prompt) {
      if (choice.trace != nullptr) choice.trace->add_prompt(token);
      if (request_.echo && request_.num_logprobs >= 0 && !token.in_source) {
        choice.scored_prompt.push_back({token.token, std::move(token.logprobs)});
      }
    }
  } else if (auto* token = std::get_if<GeneratedToken>(&event)) {
    choice.text += token->text;
    if (choice.trace != nullptr) choice.trace->add_answer_token(token->token);
    if (request_.num_logprobs >= 0) choice.scored.push_back({token->token, std::move(token->logprobs)});
  } else if (auto* trace = std::get_if<TokenTrace>(&event)) {
    if (choice.trace != nullptr) choice.trace->add_answer_trace(*trace);
  } else {
    choice.finish = std::move(std::get<Finish>(event));
    choice.text += choice.finish->text;
  }
}

// --- the answer's JSON ---

Json Generation::frame(bool is_chunk) const {
  const bool is_chat = request_.kind == GenerationRequest::Kind::kChat;
  const char* object = is_chat ? (is_chunk ? "chat.completion.chunk" : "chat.completion") : "text_completion";
  return {{"id", setting_.id}, {"object", object}, {"created", created_}, {"model", setting_.model}};
}

// Moves what the choice has gathered into the answer.
Json Generation::choice_json(int choice_idx, Choice& choice, bool is_chunk) {
  const bool is_chat = request_.kind == GenerationRequest::Kind::kChat;
  Json json = {{"index", choice_idx}};
  std::string text = std::move(choice.text);
  choice.text.clear();
  if (is_chat) {
    Json message = Json::object();
    if (!is_chunk || !choice.has_begun) message["role"] = "assistant";
    if (!is_chunk || !text.empty() || !choice.has_begun) message["content"] = std::move(text);
    if (!is_chunk) message["refusal"] = nullptr;
    json[is_chunk ? "delta" : "message"] = std::move(message);
  } else {
    json["text"] = choice.has_begun ? std::move(text) : choice.echo + text;
  }
  Json logprobs;
  if (request_.num_logprobs >= 0) {
    std::vector<ScoredToken> tokens = std::move(choice.scored_prompt);
    tokens.insert(tokens.end(), std::make_move_iterator(choice.scored.begin()),
                  std::make_move_iterator(choice.scored.end()));
    choice.scored_prompt.clear();
    choice.scored.clear();
    const Tokenizer& tokenizer = setting_.engine.tokenizer();
    logprobs = is_chat ? chat_logprobs(tokenizer, tokens)
                       : completion_logprobs(tokenizer, tokens, request_.num_logprobs, choice.text_offset);
  }
  json["logprobs"] = std::move(logprobs);
  json["finish_reason"] = choice.finish ? finish_reason(*choice.finish) : Json();
  if (choice.trace != nullptr && (!is_chunk || choice.trace->has_news())) json["trace"] = choice.trace->take();
  choice.has_begun = true;
  return json;
}

void Generation::send_event(const Json& event) { setting_.exchange->send("data: " + json_text(event) + "\n\n"); }

void Generation::send_news(int choice_idx, Choice& choice) {
  if (choice.finish) return;  // the last chunk, with the reason, is complete()'s
  const bool has_trace = choice.trace != nullptr && choice.trace->has_news();
  if (choice.text.empty() && choice.scored.empty() && !has_trace && choice.has_begun) return;
  // Of an echo with log-probabilities the first chunk waits until the prompt's are there.
  if (!choice.has_begun && request_.echo && request_.num_logprobs >= 0 && choice.scored.empty()) return;
  Json chunk = frame(true);
  chunk["choices"] = Json::array({choice_json(choice_idx, choice, true)});
  if (request_.include_usage) chunk["usage"] = nullptr;
  send_event(chunk);
}

std::optional<ApiError> Generation::failure() const {
  for (const Choice& choice : choices_) {
    if (choice.finish->reason == Finish::Reason::kFailed) {
      return ApiError{.status = 500, .message = choice.finish->failure, .type = "server_error"};
    }
    if (choice.finish->reason == Finish::Reason::kCancelled) {
      if (cancelled_why_ == "timeout") {
        return ApiError{.status = 504,
                        .message = "the answer took longer than this server allows",
                        .type = "server_error",
                        .code = "timeout"};
      }
      return ApiError{.status = 503,
                      .message = "the server stopped before the answer was complete",
                      .type = "server_error",
                      .code = "stopping",
                      .retry_after_s = 5};
    }
  }
  return std::nullopt;
}

void Generation::complete() {
  is_complete_ = true;
  AnswerFacts facts;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const Finish& finish = *choices_[i].finish;
    // The n answers share their prompt.
    if (i % static_cast<std::size_t>(request_.n) == 0) facts.prompt_tokens += finish.prompt_tokens;
    if (i % static_cast<std::size_t>(request_.n) == 0) facts.reused_tokens += finish.reused_tokens;
    facts.generated_tokens += finish.generated_tokens;
  }
  std::optional<ApiError> error;
  {
    const std::lock_guard lock(mutex_);
    error = failure();
    facts.end = error ? "failed" : finish_reason(*choices_.front().finish).get<std::string>();
    if (!cancelled_why_.empty()) facts.end = cancelled_why_;
  }
  if (error) facts.status = error->status;
  const Json usage = usage_json(facts.prompt_tokens, facts.generated_tokens, facts.reused_tokens);
  if (request_.stream) {
    if (error) {
      send_event(error_json(*error));
    } else {
      for (std::size_t i = 0; i < choices_.size(); ++i) {
        Json chunk = frame(true);
        chunk["choices"] = Json::array({choice_json(static_cast<int>(i), choices_[i], true)});
        if (request_.include_usage) chunk["usage"] = nullptr;
        send_event(chunk);
      }
      if (request_.include_usage) {
        Json chunk = frame(true);
        chunk["choices"] = Json::array();
        chunk["usage"] = usage;
        send_event(chunk);
      }
    }
    setting_.exchange->send("data: [DONE]\n\n");
    setting_.exchange->end_stream();
  } else if (error) {
    setting_.exchange->respond(error_response(*error));
  } else {
    Json body;
    if (request_.kind == GenerationRequest::Kind::kTrace) {
      body = {{"id", setting_.id}, {"object", "trace"}, {"created", created_}, {"model", setting_.model}};
      body["text"] = choices_.front().text;
      body["trace"] = choices_.front().trace->take();
    } else {
      body = frame(false);
      Json choices = Json::array();
      for (std::size_t i = 0; i < choices_.size(); ++i)
        choices.push_back(choice_json(static_cast<int>(i), choices_[i], false));
      body["choices"] = std::move(choices);
    }
    body["usage"] = usage;
    setting_.exchange->respond({.body = json_text(body) + "\n", .headers = {{"X-Request-Id", setting_.id}}});
  }
  setting_.on_end(facts);
}

}  // namespace skein
