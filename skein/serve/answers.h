// The answers of OpenAI's API as JSON, from what the engine says of one sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/serve/api_requests.h"
#include "skein/serve/engine.h"
#include "skein/text/stream_decoder.h"

namespace skein {

// One token of an answer (or of an echoed prompt) with its log-probability.
struct ScoredToken {
  TokenId token = 0;
  std::optional<TokenLogprobs> logprobs;  // none: a first token, which nothing predicts
};

// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}; logprob -9999 stands for minus infinity, as JSON has
// none.
Json chat_logprobs(const Tokenizer& tokenizer, const std::vector<ScoredToken>& tokens);
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; text_offset counts characters (code points) from
// `offset`, which moves on.
Json completion_logprobs(const Tokenizer& tokenizer, const std::vector<ScoredToken>& tokens, int num_top,
                         std::int64_t& offset);

// Which experts the tokens of one answer chose (docs/serving.md, "Traces"): gathers until taken, so that a stream can
// send what is new each time.
class TraceWriter {
 public:
  // Borrowed for this object's life, but for the names.
  TraceWriter(const Engine& engine, std::vector<std::string> experts);

  void add_prompt(const PromptToken& token);
  // A generated token and its choices arrive apart, each in order.
  void add_answer_token(TokenId token);
  void add_answer_trace(const TokenTrace& trace);

  bool has_news() const { return !tokens_.empty(); }
  // {"experts"?, "slot_sets"?, "tokens"}: experts the first time, slot sets that are new, tokens since the last time.
  Json take();

 private:
  int set_of(const std::vector<std::int32_t>& slots);
  void add(std::int64_t position, TokenId token, const char* part, std::string text, const TokenTrace& trace);

  const Engine& engine_;
  std::vector<std::string> experts_;
  bool told_experts_ = false;
  std::vector<std::vector<std::int32_t>> sets_;
  std::size_t told_sets_ = 0;
  StreamDecoder source_text_, stream_text_;
  std::int64_t next_position_ = 0;
  std::vector<TokenId> untraced_;  // generated tokens whose choices are still to come
  std::size_t num_traced_ = 0;
  Json tokens_ = Json::array();
};

// The name a model is asked for by, and shown as.
std::string api_name(const ModelChoice& choice, const std::string& base_name);
// {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details": {"cached_tokens"}}
Json usage_json(std::int64_t prompt_tokens, std::int64_t generated_tokens, std::int64_t reused_tokens);
// "stop", "length"; null while it goes on.
Json finish_reason(const Finish& finish);
// Little-endian f32, as OpenAI's clients ask for embeddings.
std::string base64_of(const std::vector<float>& values);

}  // namespace skein
