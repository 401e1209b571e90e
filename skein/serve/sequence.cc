#include "skein/serve/sequence.h"

#include <algorithm>

namespace skein {

Sequence::Sequence(RequestId id, Request request, std::shared_ptr<RequestSink> sink,
                   std::shared_ptr<const ServedModel> served, const BackboneConfig& config, const Tokenizer& tokenizer,
                   std::int64_t most_tokens)
    : id_(id),
      request_(std::move(request)),
      sink_(std::move(sink)),
      served_(std::move(served)),
      hint_(served_->model.hint_of(Example{.input = request_.input_text})),
      picker_(request_),
      // The answer of an encoder-decoder is a text of its own; a decoder's goes on from the prompt.
      stream_(tokenizer, true, !config.is_encoder_decoder()),
      stops_(request_.stop),
      tokens_(request_.prompt),
      max_new_tokens_(request_.task == Request::Task::kGenerate ? request_.max_new_tokens : 0) {
  if (config.is_encoder_decoder()) tokens_ = {static_cast<TokenId>(config.decoder_start_token)};
  num_prompt_tokens_ = static_cast<std::int64_t>(tokens_.size());
  max_new_tokens_ = std::min(max_new_tokens_, most_tokens - num_prompt_tokens_);
}

bool Sequence::shares_prefix() const {
  // Scores and choices are told of every token, so every token is computed; hints make one text's keys another's.
  const bool tells = request_.trace || request_.score_prompt || request_.task == Request::Task::kEmbed;
  return !tells && hint_ == nullptr && !served_->reads_whole_prompt;
}

Sequence::Picked Sequence::pick(std::span<float> logits) const {
  if (request_.num_logprobs < 0) return {picker_.pick(logits), std::nullopt};
  const std::vector<float> own(logits.begin(), logits.end());  // before penalties
  const TokenId token = picker_.pick(logits);
  return {token, logprobs_of(own, token, request_.num_logprobs)};
}

void Sequence::take(Picked picked, std::span<const TokenId> end_tokens) {
  const bool is_end = std::find(end_tokens.begin(), end_tokens.end(), picked.token) != end_tokens.end();
  if (is_end && !request_.ignore_end) return finish(Finish::Reason::kEnd);
  tokens_.push_back(picked.token);
  picker_.add(picked.token);
  std::string text = stops_.push(stream_.push(picked.token));
  sink_->on_token({picked.token, std::move(text), std::move(picked.logprobs)});
  if (stops_.stopped()) return finish(Finish::Reason::kStopText);
  if (num_generated() >= max_new_tokens_) finish(Finish::Reason::kLength);
}

void Sequence::finish(Finish::Reason reason) {
  Finish finish{.reason = reason};
  if (!stops_.stopped()) {
    finish.text = stops_.push(stream_.finish());
    if (stops_.stopped()) {
      finish.reason = Finish::Reason::kStopText;
    } else {
      finish.text += stops_.finish();
    }
  }
  if (finish.reason == Finish::Reason::kStopText) finish.stop_text = stops_.matched();
  const auto num_rows = static_cast<double>(request_.prompt.size());
  for (const double sum : embedding_sum) finish.embedding.push_back(static_cast<float>(sum / num_rows));
  end(std::move(finish));
}

void Sequence::fail(const std::string& sentence) { end({.reason = Finish::Reason::kFailed, .failure = sentence}); }

void Sequence::end(Finish finish) {
  if (done_) return;
  done_ = true;
  reason_ = finish.reason;
  cache.reset();
  finish.prompt_tokens = static_cast<std::int64_t>(request_.prompt.size());
  finish.generated_tokens = num_generated();
  finish.reused_tokens = reused_tokens;
  sink_->on_finish(std::move(finish));
}

}  // namespace skein
