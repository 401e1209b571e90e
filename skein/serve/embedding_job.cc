#include "skein/serve/embedding_job.h"

#include "skein/base/concat.h"

namespace skein {

class EmbeddingJob::Sink : public RequestSink {
 public:
  Sink(std::shared_ptr<EmbeddingJob> job, std::size_t index) : job_(std::move(job)), index_(index) {}
  void on_token(GeneratedToken) override {}
  void on_finish(Finish finish) override { job_->ended(index_, std::move(finish)); }

 private:
  const std::shared_ptr<EmbeddingJob> job_;
  const std::size_t index_;
};

EmbeddingJob::EmbeddingJob(GenerationSetting setting, EmbeddingRequest request)
    : setting_(std::move(setting)), request_(std::move(request)) {}

void EmbeddingJob::start(const std::vector<std::vector<TokenId>>& prompts) {
  ends_.resize(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request wanted{.task = Request::Task::kEmbed,
                   .prompt = prompts[i],
                   .client = setting_.client,
                   .model = setting_.choice,
                   .max_new_tokens = 0};
    auto submitted = setting_.engine.submit(std::move(wanted), std::make_shared<Sink>(shared_from_this(), i));
    if (const auto* refusal = std::get_if<Refusal>(&submitted)) {
      cancel();
      throw ApiFailure(refusal_error(*refusal));
    }
    const std::lock_guard lock(mutex_);
    ids_.push_back(std::get<RequestId>(submitted));
  }
}

void EmbeddingJob::cancel() {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    ids = ids_;
  }
  for (const RequestId id : ids) setting_.engine.cancel(id);
}

void EmbeddingJob::ended(std::size_t index, Finish finish) {
  {
    const std::lock_guard lock(mutex_);
    ends_[index] = std::move(finish);
    if (++num_ended_ < ends_.size()) return;
  }
  setting_.exchange->run_soon([self = shared_from_this()] { self->answer(); });
}

void EmbeddingJob::answer() {
  AnswerFacts facts{.end = "stop"};
  Json data = Json::array();
  for (std::size_t i = 0; i < ends_.size(); ++i) {
    const Finish& finish = *ends_[i];
    facts.prompt_tokens += finish.prompt_tokens;
    if (finish.reason == Finish::Reason::kFailed || finish.reason == Finish::Reason::kCancelled) {
      const bool failed = finish.reason == Finish::Reason::kFailed;
      facts.status = failed ? 500 : 503;
      setting_.exchange->respond(
          error_response({.status = facts.status,
                          .message = failed ? finish.failure : "the server stopped before the answer was complete",
                          .type = "server_error"}));
      return setting_.on_end(facts);
    }
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", request_.is_base64 ? Json(base64_of(finish.embedding)) : Json(finish.embedding)}});
  }
  const Json body = {{"object", "list"},
                     {"data", std::move(data)},
                     {"model", setting_.model},
                     {"usage", {{"prompt_tokens", facts.prompt_tokens}, {"total_tokens", facts.prompt_tokens}}}};
  setting_.exchange->respond({.body = json_text(body) + "\n", .headers = {{"X-Request-Id", setting_.id}}});
  setting_.on_end(facts);
}

}  // namespace skein
