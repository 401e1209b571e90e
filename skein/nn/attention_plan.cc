#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/attention.h"

namespace skein {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Where each row of a segment stands: its position, and the branch it belongs to (-1: the prompt, which all branches
// see).
struct Place {
  std::int64_t position;
  std::int64_t branch;
};

std::vector<Place> places_of(const Segment& segment) {
  std::int64_t prompt = segment.length;
  for (const std::int64_t length : segment.branches) prompt -= length;
  SKEIN_CHECK(prompt >= 0);
  std::vector<Place> places;
  for (std::int64_t row = 0; row < prompt; ++row) places.push_back({row, -1});
  for (std::size_t branch = 0; branch < segment.branches.size(); ++branch) {
    for (std::int64_t row = 0; row < segment.branches[branch]; ++row) {
      places.push_back({prompt + row, static_cast<std::int64_t>(branch)});
    }
  }
  return places;
}

bool sees(const Place& query, const Place& key, const PlanOptions& options) {
  if (key.branch >= 0 && key.branch != query.branch) return false;
  if (!options.causal) return true;
  return key.position <= query.position && (options.window == 0 || key.position > query.position - options.window);
}

// (1, 1, queries, keys): 0 where the query sees the key. Queries are the last places.
at::Tensor mask_of(const std::vector<Place>& places, std::int64_t queries, const PlanOptions& options) {
  const std::int64_t keys = static_cast<std::int64_t>(places.size());
  at::Tensor mask = at::empty({1, 1, queries, keys}, at::TensorOptions().dtype(c10::ScalarType::Float));
  float* cell = mask.mutable_data_ptr<float>();
  for (std::int64_t query = keys - queries; query < keys; ++query) {
    for (std::int64_t key = 0; key < keys; ++key) *cell++ = sees(places[query], places[key], options) ? 0.0F : kHidden;
  }
  return mask.to(options.mask_options);
}

// (H, queries, keys). Branches continue the prompt, each from its end: their rows are looked up by position.
at::Tensor bias_of(const Segment& segment, std::int64_t past, const ScoreBias& bias) {
  if (segment.branches.empty()) return bias.scores(past, segment.length, past + segment.length);
  std::vector<std::int64_t> positions;
  for (const Place& place : places_of(segment)) positions.push_back(place.position);
  const std::int64_t longest = *std::max_element(positions.begin(), positions.end()) + 1;
  const at::Tensor by_position = bias.scores(0, longest, longest);
  const at::Tensor rows = at::tensor(positions).to(by_position.device());
  return by_position.index_select(1, rows).index_select(2, rows);
}

AttentionRun plan_run(const Segment& segment, const PlanOptions& options, const ScoreBias* bias) {
  SKEIN_CHECK(segment.cache == nullptr || segment.branches.empty());
  SKEIN_CHECK(segment.branches.empty() || options.causal);
  const std::int64_t past = segment.cache != nullptr ? segment.cache->length() : 0;
  AttentionRun run{.begin = segment.begin,
                   .length = segment.length,
                   .key_begin = segment.begin,
                   .key_length = segment.length,
                   .cache = segment.cache};
  if (segment.cache != nullptr) {
    run.key_begin = 0;
    run.key_length = past + segment.length;
    if (segment.length == 1 && options.window > 0 && run.key_length > options.window) {  // no mask: fewer keys
      run.key_begin = run.key_length - options.window;
      run.key_length = options.window;
    }
  }
  const bool one_query = segment.cache != nullptr && segment.length == 1;  // sees all its keys
  const bool branches = !segment.branches.empty();
  run.causal = options.causal && !one_query;
  // Rows of branches stand at other positions than their places.
  run.window = one_query || branches ? 0 : options.window;
  run.rows_apart = segment.cache != nullptr && bias == nullptr && (one_query || segment.rows_apart);
  const auto positional = [&] {
    Segment whole = segment;
    whole.length += past;
    return mask_of(places_of(whole), segment.length, options);
  };
  if (branches) run.mask = positional();
  const bool triangle = !branches && (options.window == 0 || run.key_length <= options.window) && past == 0;
  if (options.dense && options.causal && !one_query && (branches || bias != nullptr || !triangle)) {
    run.dense_mask = branches ? run.mask : positional();
  }
  if (bias != nullptr) {
    const at::Tensor scores = bias_of(segment, past, *bias).unsqueeze(0).to(options.mask_options).contiguous();
    run.mask = run.mask.defined() ? run.mask + scores : scores;
    if (options.dense) run.dense_mask = run.dense_mask.defined() ? run.dense_mask + scores : scores;
  }
  return run;
}

bool alike(const Segment& a, const Segment& b) {
  return a.cache == nullptr && b.cache == nullptr && a.branches.empty() && b.branches.empty() && a.length == b.length &&
         b.begin == a.begin + a.length;
}

}  // namespace

PlanOptions plan_options(const at::TensorOptions& weights, bool causal, std::int64_t window) {
  const bool cpu = weights.device().is_cpu();
  return {causal, window, cpu ? weights.dtype(c10::ScalarType::Float) : weights, !cpu || at::GradMode::is_enabled()};
}

bool AttentionPlan::has_cache() const {
  for (const AttentionRun& run : runs) {
    if (run.cache != nullptr) return true;
  }
  return false;
}

std::shared_ptr<const AttentionPlan> plan_self_attention(const std::vector<Segment>& segments,
                                                         const PlanOptions& options, const ScoreBias* bias) {
  auto plan = std::make_shared<AttentionPlan>();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (segments[i].length == 0) continue;
    if (i > 0 && !plan->runs.empty() && alike(segments[i - 1], segments[i])) {
      ++plan->runs.back().count;
    } else {
      plan->runs.push_back(plan_run(segments[i], options, bias));
    }
  }
  return plan;
}

std::shared_ptr<const AttentionPlan> plan_cross_attention(const std::vector<Segment>& segments,
                                                          const std::vector<Segment>& source) {
  auto plan = std::make_shared<AttentionPlan>();
  plan->cross = true;
  for (const Segment& segment : segments) {
    if (segment.length == 0) continue;
    AttentionRun run{.begin = segment.begin, .length = segment.length, .cache = segment.cache};
    run.rows_apart = segment.cache != nullptr && (segment.length == 1 || segment.rows_apart);
    if (segment.cache == nullptr) {
      SKEIN_CHECK(segment.source >= 0 && segment.source < static_cast<std::int64_t>(source.size()));
      run.key_begin = source[segment.source].begin;
      run.key_length = source[segment.source].length;
    }
    plan->runs.push_back(std::move(run));
  }
  return plan;
}

}  // namespace skein
