#include "skein/serve/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <c10/core/InferenceMode.h>

#include "skein/base/concat.h"
#include "skein/serve/fair_queue.h"
#include "skein/serve/model_pool.h"
#include "skein/serve/scheduler.h"

namespace skein {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMostSourceTokens = 1 << 14;  // an encoder has no positions to run out of, but memory

void require_options(const EngineOptions& options) {
  if (options.max_running < 1 || options.max_waiting < 0 || options.prefill_tokens < 1 || options.cache_bytes < 0) {
    throw Failure({"max_running and prefill_tokens must be at least 1, max_waiting and cache_bytes not negative",
                   ErrorKind::kUsage});
  }
}

class ContinuousEngine : public Engine {
 public:
  ContinuousEngine(Env& env, const EngineOptions& options)
      : options_((require_options(options), options)),
        pool_(env, options_),
        scheduler_(backbone(), *pool_.base().tokenizer, options_),
        thread_([this] { run(); }) {}
  ~ContinuousEngine() override {
    stop(std::chrono::milliseconds(0));
    thread_.join();
  }

  std::variant<RequestId, Refusal> submit(Request request, std::shared_ptr<RequestSink> sink) override {
    std::optional<Refusal> refusal = check(request);
    if (!refusal) {
      try {
        const std::shared_ptr<const ServedModel> served = pool_.resolve(request.model);
        const std::string client = request.client;
        const std::int64_t most_tokens = scheduler_.most_tokens(static_cast<std::int64_t>(request.prompt.size()));
        auto sequence = std::make_unique<Sequence>(next_id_++, std::move(request), std::move(sink), served, config(),
                                                   *pool_.base().tokenizer, most_tokens);
        const RequestId id = sequence->id();
        const std::lock_guard lock(mutex_);
        refusal = cannot_queue();
        if (!refusal) {
          waiting_.push(client, std::move(sequence));
          ++stats_.submitted;
          wake_.notify_all();
          return id;
        }
      } catch (const TooManyRouters& failure) {
        refusal = Refusal{Refusal::Reason::kQueueFull, failure.what()};
      } catch (const Failure& failure) {
        refusal = Refusal{Refusal::Reason::kUnknownModel, failure.what()};
      }
    }
    const std::lock_guard lock(mutex_);
    ++stats_.refused;
    return *refusal;
  }

  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
    wake_.notify_all();
  }

  void reload() override { pool_.reload(); }
  std::vector<ModelName> models() const override { return pool_.list_models(); }

  void stop(std::chrono::milliseconds within) override {
    std::unique_lock lock(mutex_);
    const Clock::time_point deadline = Clock::now() + within;
    deadline_ = stopping_ ? std::min(deadline_, deadline) : deadline;
    stopping_ = true;
    wake_.notify_all();
    if (std::this_thread::get_id() != thread_.get_id()) ended_.wait(lock, [this] { return has_ended_; });
  }

  EngineStats stats() const override {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    stats.waiting = static_cast<std::int64_t>(waiting_.size());
    return stats;
  }

  const Tokenizer& tokenizer() const override { return *pool_.base().tokenizer; }
  const BackboneConfig& config() const override { return pool_.base().base.config; }
  const std::vector<SlotName>& backbone_slots() const override { return backbone().slots(); }
  const ComputeOptions& compute() const override { return backbone().compute(); }

 private:
  const Backbone& backbone() const { return *pool_.base().backbone; }

  // What is wrong with the request whatever else is served.
  std::optional<Refusal> check(const Request& request) const {
    using Reason = Refusal::Reason;
    const auto bad = [](std::string message) { return Refusal{Reason::kBadRequest, std::move(message)}; };
    if (request.prompt.empty()) return bad("the prompt is empty: there is nothing to go on from");
    for (const TokenId token : request.prompt) {
      if (token < 0 || token >= config().vocabulary_size) {
        return bad(concat("token id ", token, " in the prompt; the base has 0 to ", config().vocabulary_size - 1));
      }
    }
    const Sampling& sampling = request.sampling;
    const bool in_range = sampling.temperature >= 0 && sampling.temperature <= 1e4 && sampling.top_p >= 0 &&
                          sampling.top_p <= 1 && sampling.repetition_penalty > 0 &&
                          sampling.repetition_penalty <= 1e4 && std::abs(sampling.presence_penalty) <= 1e4 &&
                          std::abs(sampling.frequency_penalty) <= 1e4;
    if (!in_range) return bad("a sampling option is out of range");
    if (request.max_new_tokens < 0) return bad("max_new_tokens is negative");
    if (request.score_prompt && config().is_encoder_decoder()) {
      return bad("an encoder-decoder's prompt has no log-probabilities");
    }
    const auto length = static_cast<std::int64_t>(request.prompt.size());
    if (config().is_encoder_decoder()) {
      // Two: the start token and one of the answer.
      if (length <= kMostSourceTokens && scheduler_.most_tokens(length) >= 2) return std::nullopt;
      return Refusal{Reason::kTooLong, concat("the prompt has ", length, " tokens; at most ", kMostSourceTokens,
                                              ", and as many as the cache holds with an answer, are read")};
    }
    const bool writes = request.task == Request::Task::kGenerate && request.max_new_tokens > 0;
    if (length + (writes ? 1 : 0) > scheduler_.most_tokens()) {
      return Refusal{Reason::kTooLong, concat("the prompt has ", length, " tokens; ", scheduler_.most_tokens(),
                                              " fit into the base's positions and the cache, the answer included")};
    }
    return std::nullopt;
  }

  // Under mutex_.
  std::optional<Refusal> cannot_queue() const {
    if (stopping_) return Refusal{Refusal::Reason::kStopping, "the engine is stopping"};
    // What can start at once does not wait.
    const auto room = static_cast<std::size_t>(options_.max_waiting +
                                               std::max<std::int64_t>(0, options_.max_running - stats_.running));
    if (waiting_.size() < room) return std::nullopt;
    return Refusal{Refusal::Reason::kQueueFull, concat(waiting_.size(), " requests wait already")};
  }

  // What happened since the last step. false: the engine has ended.
  bool take_orders() {
    std::vector<std::unique_ptr<Sequence>> admitted, dropped;
    std::vector<RequestId> cancelled;
    bool cancels_all = false, is_over = false;
    {
      std::unique_lock lock(mutex_);
      publish_stats();
      wake_.wait(lock, [this] { return !scheduler_.idle() || !waiting_.empty() || !cancelled_.empty() || stopping_; });
      for (const RequestId id : std::exchange(cancelled_, {})) {
        if (auto waiting = waiting_.take([&](const auto& sequence) { return sequence->id() == id; })) {
          dropped.push_back(std::move(*waiting));
        } else {
          cancelled.push_back(id);
        }
      }
      cancels_all = stopping_ && Clock::now() >= deadline_;
      while (!waiting_.empty() && cancels_all) dropped.push_back(waiting_.pop());
      own_counts_.cancelled += static_cast<std::int64_t>(dropped.size());
    }
    for (const auto& sequence : dropped) sequence->finish(Finish::Reason::kCancelled);
    for (const RequestId id : cancelled) scheduler_.cancel(id);
    if (cancels_all) scheduler_.cancel_all();
    {
      const std::lock_guard lock(mutex_);
      while (!waiting_.empty() && scheduler_.has_room_for(*waiting_.front())) scheduler_.admit(waiting_.pop());
      is_over = stopping_ && scheduler_.idle() && waiting_.empty();
      publish_stats();
      if (is_over) {
        has_ended_ = true;
        ended_.notify_all();
      }
    }
    return !is_over;
  }

  // Under mutex_, by the engine's thread.
  void publish_stats() {
    EngineStats stats = own_counts_;
    stats.submitted = stats_.submitted;
    stats.refused = stats_.refused;
    scheduler_.add_to(stats);
    stats_ = stats;
  }

  void run() {
    const c10::InferenceMode inference;
    while (take_orders()) scheduler_.step();
  }

  const EngineOptions options_;
  ModelPool pool_;
  std::atomic<RequestId> next_id_ = 1;

  mutable std::mutex mutex_;  // of all up to scheduler_
  std::condition_variable wake_, ended_;
  FairQueue<std::unique_ptr<Sequence>> waiting_;
  std::vector<RequestId> cancelled_;
  bool stopping_ = false, has_ended_ = false;
  Clock::time_point deadline_;
  EngineStats stats_;

  EngineStats own_counts_;  // of the engine's thread, as is the scheduler
  Scheduler scheduler_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> Engine::load(Env& env, const EngineOptions& options) {
  return std::make_unique<ContinuousEngine>(env, options);
}

}  // namespace skein
