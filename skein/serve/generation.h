// One request that generates: its sequences in the engine, and the answer made of them.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "skein/serve/answers.h"
#include "skein/serve/http_exchange.h"
#include "skein/serve/metrics.h"

namespace skein {

// How a request ended, for the log.
struct AnswerFacts {
  int status = 200;
  std::string end;  // "stop", "length", "gone", "timeout", ...
  std::int64_t prompt_tokens = 0, generated_tokens = 0, reused_tokens = 0;
};

struct GenerationSetting {
  Engine& engine;
  ServerMetrics& metrics;
  std::shared_ptr<HttpExchange> exchange;
  std::string id;      // "chatcmpl-..."
  std::string model;   // as the answer names it
  ModelChoice choice;  // with the request's changes to the router
  std::vector<std::string> experts;
  std::string client;
  std::string prefix_scope;  // Request::prefix_scope, but for the request's own cache_salt
  std::chrono::steady_clock::time_point arrived;
  std::function<void(const AnswerFacts&)> on_end;  // once, when the answer is complete
};

// Lives until its last sequence has ended. What the engine says is only noted down on its thread; JSON is made on the
// handlers' threads.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(GenerationSetting setting, GenerationRequest request);

  // Submits a sequence for each prompt and each of n, prompts in order. On a refusal all are cancelled and an
  // ApiFailure is thrown; the exchange is then still to be answered.
  void start(const std::vector<std::vector<TokenId>>& prompts, const std::vector<std::string>& prompt_texts);
  // From any thread: ends the sequences; the answer tells why ("timeout"; of a client that is gone nobody reads it).
  void cancel(const std::string& why);
  std::chrono::steady_clock::time_point arrived() const { return setting_.arrived; }

 private:
  using Event = std::variant<std::vector<PromptToken>, GeneratedToken, TokenTrace, Finish>;
  class Sink;
  struct Choice {
    std::string text;                        // not sent yet when streaming, all of it otherwise
    std::vector<ScoredToken> scored;         // likewise
    std::vector<ScoredToken> scored_prompt;  // echo
    std::int64_t text_offset = 0;
    std::unique_ptr<TraceWriter> trace;
    std::string echo;
    bool has_begun = false;  // its first chunk is out
    std::optional<Finish> finish;
    std::optional<std::chrono::steady_clock::time_point> last_token;
  };

  void note(int choice_idx, Event event);  // the engine's thread
  void schedule_drain();
  void drain();
  void take(Choice& choice, Event event);
  void send_news(int choice_idx, Choice& choice);
  Json choice_json(int choice_idx, Choice& choice, bool is_chunk);
  Json frame(bool is_chunk) const;
  void send_event(const Json& event);
  void complete();
  std::optional<ApiError> failure() const;

  const GenerationSetting setting_;
  const GenerationRequest request_;
  const std::int64_t created_;
  std::vector<Choice> choices_;  // touched by drain() alone once started

  std::mutex mutex_;  // of what follows
  std::vector<RequestId> ids_;
  std::deque<std::pair<int, Event>> events_;
  bool has_started_ = false, is_draining_ = false, is_abandoned_ = false;
  std::string cancelled_why_;
  bool is_complete_ = false;  // drain() alone
};

// A refusal of the engine as an error of the API.
ApiError refusal_error(const Refusal& refusal);

}  // namespace skein
