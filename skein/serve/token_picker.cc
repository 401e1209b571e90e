#include "skein/serve/token_picker.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "skein/infer/sampler.h"

namespace skein {
namespace {

// The largest, in four chains that do not wait for each other.
float largest_of(std::span<const float> logits) {
  std::array<float, 4> most;
  most.fill(-std::numeric_limits<float>::infinity());
  std::array<int, 4> is_nan{};
  std::size_t i = 0;
  for (; i + 4 <= logits.size(); i += 4) {
    for (std::size_t j = 0; j < 4; ++j) {
      most[j] = logits[i + j] > most[j] ? logits[i + j] : most[j];
      is_nan[j] |= logits[i + j] != logits[i + j];
    }
  }
  for (; i < logits.size(); ++i) {
    most[0] = std::max(most[0], logits[i]);
    is_nan[0] |= logits[i] != logits[i];
  }
  if (std::accumulate(is_nan.begin(), is_nan.end(), 0) != 0) refuse_nan_logits();
  return *std::max_element(most.begin(), most.end());
}

}  // namespace

TokenPicker::TokenPicker(const Request& request) : sampling_(request.sampling) {
  if (sampling_.repetition_penalty != 1) seen_.insert(request.prompt.begin(), request.prompt.end());
}

void TokenPicker::add(TokenId generated) {
  ++num_generated_;
  ++counts_[generated];
  if (sampling_.repetition_penalty != 1) seen_.insert(generated);
}

void TokenPicker::adjust(std::span<float> logits) const {
  const auto is_inside = [&](TokenId token) { return token >= 0 && static_cast<std::size_t>(token) < logits.size(); };
  const auto penalty = static_cast<float>(sampling_.repetition_penalty);
  for (const TokenId token : seen_) {
    if (!is_inside(token)) continue;
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  if (sampling_.presence_penalty != 0 || sampling_.frequency_penalty != 0) {
    for (const auto& [token, count] : counts_) {
      logits[static_cast<std::size_t>(token)] -=
          static_cast<float>(sampling_.presence_penalty + sampling_.frequency_penalty * static_cast<double>(count));
    }
  }
  for (const auto& [token, bias] : sampling_.logit_bias) {
    if (is_inside(token)) logits[static_cast<std::size_t>(token)] += bias;
  }
}

TokenId TokenPicker::pick(std::span<float> logits) const {
  adjust(logits);
  const float largest = largest_of(logits);
  if (sampling_.temperature > 0) {
    return sample_token(logits, sampling_.temperature, sampling_.top_p, uniform_draw(sampling_.seed, num_generated_));
  }
  return static_cast<TokenId>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

TokenLogprobs logprobs_of(std::span<const float> logits, TokenId token, int num_top) {
  const double largest = largest_of(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  const double log_sum = largest + std::log(sum);
  const auto of = [&](TokenId id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum);
  };
  TokenLogprobs result{of(token), {}};
  const std::size_t count = std::min(static_cast<std::size_t>(std::max(num_top, 0)), logits.size());
  if (count == 0) return result;
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto is_likelier = [&](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] != logits[static_cast<std::size_t>(b)]
               ? logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)]
               : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), is_likelier);
  for (std::size_t i = 0; i < count; ++i) result.top.emplace_back(ids[i], of(ids[i]));
  return result;
}

}  // namespace skein
