#include "skein/serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>

namespace skein {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kRequestSeconds = {0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300};
const Buckets kFirstTokenSeconds = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60};
const Buckets kGapSeconds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5};

}  // namespace

struct ServerMetrics::State {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests = BuildCounter()
                                                          .Name("skein_http_requests_total")
                                                          .Help("Requests answered, by route and status code")
                                                          .Register(registry);
  prometheus::Family<prometheus::Counter>& prompt_tokens =
      BuildCounter().Name("skein_prompt_tokens_total").Help("Tokens of prompts, by model").Register(registry);
  prometheus::Family<prometheus::Counter>& generated_tokens =
      BuildCounter().Name("skein_generated_tokens_total").Help("Tokens written, by model").Register(registry);
  prometheus::Family<prometheus::Histogram>& seconds = BuildHistogram()
                                                           .Name("skein_request_seconds")
                                                           .Help("From a request's arrival to the end of its answer")
                                                           .Register(registry);
  prometheus::Histogram& first_token = BuildHistogram()
                                           .Name("skein_time_to_first_token_seconds")
                                           .Help("From a request's arrival to its first token")
                                           .Register(registry)
                                           .Add({}, kFirstTokenSeconds);
  prometheus::Histogram& gap = BuildHistogram()
                                   .Name("skein_time_between_tokens_seconds")
                                   .Help("Between two tokens of one answer")
                                   .Register(registry)
                                   .Add({}, kGapSeconds);
  prometheus::Family<prometheus::Gauge>& sequences =
      BuildGauge().Name("skein_sequences").Help("Sequences in the engine, running or waiting").Register(registry);
  prometheus::Family<prometheus::Gauge>& pages = BuildGauge()
                                                     .Name("skein_cache_pages")
                                                     .Help("Pages of keys and values: used, kept for reuse, in all")
                                                     .Register(registry);
  prometheus::Family<prometheus::Counter>& ended =
      BuildCounter().Name("skein_sequences_total").Help("Sequences by how they ended").Register(registry);
  prometheus::Counter& steps =
      BuildCounter().Name("skein_engine_steps_total").Help("Steps of the engine").Register(registry).Add({});
  prometheus::Counter& reused = BuildCounter()
                                    .Name("skein_reused_prompt_tokens_total")
                                    .Help("Tokens of prompts whose keys and values were kept from earlier ones")
                                    .Register(registry)
                                    .Add({});
  std::mutex scrape_mutex;  // a counter is set by the difference to what it holds
};

ServerMetrics::ServerMetrics() : state_(std::make_unique<State>()) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::request_ended(const std::string& route, int status, double seconds) {
  state_->requests.Add({{"route", route}, {"status", std::to_string(status)}}).Increment();
  state_->seconds.Add({{"route", route}}, kRequestSeconds).Observe(seconds);
}

void ServerMetrics::answer_ended(const std::string& model, std::int64_t prompt_tokens, std::int64_t generated_tokens) {
  state_->prompt_tokens.Add({{"model", model}}).Increment(static_cast<double>(prompt_tokens));
  state_->generated_tokens.Add({{"model", model}}).Increment(static_cast<double>(generated_tokens));
}

void ServerMetrics::first_token(double seconds) { state_->first_token.Observe(seconds); }
void ServerMetrics::token_gap(double seconds) { state_->gap.Observe(seconds); }

std::string ServerMetrics::text(const EngineStats& stats) {
  const std::lock_guard lock(state_->scrape_mutex);
  const auto set = [](prometheus::Counter& counter, std::int64_t value) {
    const double more = static_cast<double>(value) - counter.Value();
    if (more > 0) counter.Increment(more);
  };
  state_->sequences.Add({{"state", "running"}}).Set(static_cast<double>(stats.running));
  state_->sequences.Add({{"state", "waiting"}}).Set(static_cast<double>(stats.waiting));
  state_->pages.Add({{"state", "used"}}).Set(static_cast<double>(stats.pages_used));
  state_->pages.Add({{"state", "kept"}}).Set(static_cast<double>(stats.pages_kept));
  state_->pages.Add({{"state", "total"}}).Set(static_cast<double>(stats.pages_total));
  set(state_->steps, stats.steps);
  set(state_->reused, stats.reused_tokens);
  set(state_->ended.Add({{"end", "finished"}}), stats.finished);
  set(state_->ended.Add({{"end", "cancelled"}}), stats.cancelled);
  set(state_->ended.Add({{"end", "failed"}}), stats.failed);
  set(state_->ended.Add({{"end", "refused"}}), stats.refused);
  set(state_->ended.Add({{"end", "preempted"}}), stats.preempted);
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace skein
