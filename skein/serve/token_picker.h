// The next token of one sequence, from its logits, as its request says.
#pragma once

#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "skein/serve/request.h"

namespace skein {

class TokenPicker {
 public:
  // request is borrowed for this object's life.
  explicit TokenPicker(const Request& request);

  // A function of the logits and of the tokens added so far. Changes logits (its caller's scratch). Throws Failure on
  // NaN. Different pickers may run side by side.
  TokenId pick(std::span<float> logits) const;
  void add(TokenId generated);

 private:
  void adjust(std::span<float> logits) const;

  const Sampling& sampling_;
  std::unordered_set<TokenId> seen_;                  // prompt and answer; with a repetition penalty only
  std::unordered_map<TokenId, std::int64_t> counts_;  // of the answer
  std::uint64_t num_generated_ = 0;
};

// Of `token` and of the `num_top` likeliest (ties to the lower id) under softmax(logits).
TokenLogprobs logprobs_of(std::span<const float> logits, TokenId token, int num_top);

}  // namespace skein
