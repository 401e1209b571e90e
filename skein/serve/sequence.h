// One request while it is served: its tokens, its cache, its text.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "skein/infer/stop_texts.h"
#include "skein/nn/backbone.h"
#include "skein/serve/engine.h"
#include "skein/serve/model_pool.h"
#include "skein/serve/prefix_cache.h"
#include "skein/serve/token_picker.h"
#include "skein/text/stream_decoder.h"

namespace skein {

// Used by one thread. Its sink hears on_finish once: by take(), finish() or fail().
class Sequence {
 public:
  // tokenizer is borrowed for this object's life. most_tokens: what the stream may hold at most.
  Sequence(RequestId id, Request request, std::shared_ptr<RequestSink> sink, std::shared_ptr<const ServedModel> served,
           const BackboneConfig& config, const Tokenizer& tokenizer, std::int64_t most_tokens);

  RequestId id() const { return id_; }
  const Request& request() const { return request_; }
  const ServedModel& served() const { return *served_; }
  RequestSink& sink() const { return *sink_; }
  const std::shared_ptr<const SequenceHint>& hint() const { return hint_; }
  bool done() const { return done_; }
  Finish::Reason reason() const { return reason_; }  // once done

  // What the (decoder's) stream holds: the prompt, or an encoder-decoder's start token, then the answer.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  std::int64_t num_prompt_tokens() const { return num_prompt_tokens_; }  // of tokens()
  std::int64_t num_generated() const { return static_cast<std::int64_t>(tokens_.size()) - num_prompt_tokens_; }
  std::int64_t max_new_tokens() const { return max_new_tokens_; }

  std::unique_ptr<KvSequence> cache;  // its owner makes and drops it
  std::int64_t num_cached() const { return cache == nullptr ? 0 : cache->length(); }
  bool is_reading() const { return num_cached() < num_prompt_tokens_; }  // the prompt
  // One row is left to compute: the last token, from which the next is picked.
  bool is_writing() const { return !is_reading() && num_cached() + 1 == static_cast<std::int64_t>(tokens_.size()); }
  // May take over, and leave behind, keys and values of its prompt.
  bool shares_prefix() const;
  PrefixOwner prefix_owner() const { return {served_->identity, request_.prefix_scope}; }
  std::int64_t reused_tokens = 0;
  std::int64_t told = 0;                       // tokens of the stream whose scores and choices the sink has heard of
  std::vector<double> embedding_sum;           // Task::kEmbed: of the rows so far
  std::optional<TokenLogprobs> next_logprobs;  // score_prompt: of the prompt's next token

  // The next token from its logits, or the end. logits is scratch. Throws Failure on NaN.
  struct Picked {
    TokenId token = 0;
    std::optional<TokenLogprobs> logprobs;
  };
  Picked pick(std::span<float> logits) const;
  void take(Picked picked, std::span<const TokenId> end_tokens);
  void finish(Finish::Reason reason);
  void fail(const std::string& sentence);

 private:
  void end(Finish finish);

  RequestId id_;
  Request request_;
  std::shared_ptr<RequestSink> sink_;
  std::shared_ptr<const ServedModel> served_;
  std::shared_ptr<const SequenceHint> hint_;
  TokenPicker picker_;
  StreamDecoder stream_;
  StopTexts stops_;
  std::vector<TokenId> tokens_;
  std::int64_t num_prompt_tokens_ = 0;
  std::int64_t max_new_tokens_ = 0;
  bool done_ = false;
  Finish::Reason reason_ = Finish::Reason::kEnd;
};

}  // namespace skein
