// The routes that ask the engine: chat, completions, traces, embeddings.
#include <algorithm>

#include "skein/base/concat.h"
#include "skein/serve/embedding_job.h"
#include "skein/serve/service_call.h"

namespace skein {

std::vector<TokenId> Service::encode(const Prompt& prompt, const std::string& field) const {
  const Tokenizer& tokenizer = engine_.tokenizer();
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    return tokenizer.encode(*text, {.add_special = true, .parse_special = false});
  }
  const auto& ids = std::get<std::vector<TokenId>>(prompt);
  for (const TokenId id : ids) {
    if (id < tokenizer.vocabulary_size()) continue;
    throw ApiFailure({.message = concat(field, " holds the token ", id, "; the base has ", tokenizer.vocabulary_size()),
                      .param = field});
  }
  return ids;
}

GenerationSetting Service::setting_of(const std::shared_ptr<Call>& call, const ModelName& model) {
  call->logged.model = api_name(model.choice, options_.base_name);
  return {.engine = engine_,
          .metrics = metrics_,
          .exchange = call->exchange,
          .id = call->id,
          .model = call->logged.model,
          .choice = model.choice,
          .experts = model.experts,
          .client = call->client,
          .prefix_scope = options_.keys.is_open() ? "" : call->client,
          .arrived = call->arrived,
          .on_end = [this, call](const AnswerFacts& facts) {
            call->logged.end = facts.end;
            call->logged.prompt_tokens = facts.prompt_tokens;
            call->logged.generated_tokens = facts.generated_tokens;
            call->logged.reused_tokens = facts.reused_tokens;
            metrics_.answer_ended(call->logged.model, facts.prompt_tokens, facts.generated_tokens);
            end(call, facts.status);
          }};
}

void Service::generate(const std::shared_ptr<Call>& call, GenerationRequest request) {
  const ModelName model = find_model(request.model);
  GenerationSetting setting = setting_of(call, model);
  if (request.router.is_any()) {
    if (model.choice.kind != ModelChoice::Kind::kRouter) {
      throw ApiFailure({.message = concat("router changes a router's settings, and '", setting.model, "' is none"),
                        .param = "router"});
    }
    for (const auto* names : {&request.router.only, &request.router.without}) {
      for (const std::string& name : *names) {
        if (std::find(model.experts.begin(), model.experts.end(), name) != model.experts.end()) continue;
        throw ApiFailure({.message = concat("router names the expert '", printable(name, 60), "', which is not served"),
                          .param = "router"});
      }
    }
    request.router.apply_to(setting.choice.router);
  }
  if (request.trace && model.experts.empty()) {
    throw ApiFailure({.message = concat("trace tells which experts were chosen, and '", setting.model, "' has none"),
                      .param = "trace"});
  }
  if (request.echo && request.num_logprobs >= 0 && engine_.config().is_encoder_decoder()) {
    throw ApiFailure({.message = "echo with logprobs is for decoder-only bases; this one reads prompts in its encoder",
                      .param = "echo"});
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (id < engine_.tokenizer().vocabulary_size()) continue;
    throw ApiFailure(
        {.message = concat("logit_bias names the token ", id, "; the base has ", engine_.tokenizer().vocabulary_size()),
         .param = "logit_bias"});
  }

  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::string> texts;
  if (request.is_chat()) {
    Result<std::string> rendered = render_chat(engine_.tokenizer(), request.messages, /*add_generation_prompt=*/true);
    if (!rendered.ok()) throw ApiFailure({.message = rendered.error().message, .param = "messages"});
    prompts.push_back(engine_.tokenizer().encode(*rendered, {.add_special = false, .parse_special = true}));
    texts.push_back(request.messages.back().content);
  }
  for (const Prompt& prompt : request.prompts) {
    prompts.push_back(encode(prompt, "prompt"));
    const auto* text = std::get_if<std::string>(&prompt);
    texts.push_back(text != nullptr ? *text : engine_.tokenizer().decode(prompts.back(), /*skip_special=*/false));
  }
  if (!request.max_tokens) request.max_tokens = options_.limits.max_tokens;

  const auto generation = std::make_shared<Generation>(std::move(setting), std::move(request));
  call->exchange->on_gone([weak = std::weak_ptr(generation)] {
    if (const auto alive = weak.lock()) alive->cancel("gone");
  });
  generation->start(prompts, texts);
  const std::lock_guard lock(mutex_);
  running_.erase(std::remove_if(running_.begin(), running_.end(), [](const auto& weak) { return weak.expired(); }),
                 running_.end());
  running_.push_back(generation);
}

void Service::chat(const std::shared_ptr<Call>& call) {
  generate(call, parse_chat_request(body_of(*call), options_.limits));
}
void Service::completions(const std::shared_ptr<Call>& call) {
  generate(call, parse_completion_request(body_of(*call), options_.limits));
}
void Service::trace(const std::shared_ptr<Call>& call) {
  generate(call, parse_trace_request(body_of(*call), options_.limits));
}

void Service::embeddings(const std::shared_ptr<Call>& call) {
  EmbeddingRequest request = parse_embedding_request(body_of(*call), options_.limits);
  const ModelName model = find_model(request.model);
  if (request.dimensions && *request.dimensions != engine_.config().d_model) {
    throw ApiFailure({.message = concat("embeddings of this base have ", engine_.config().d_model, " dimensions"),
                      .param = "dimensions"});
  }
  std::vector<std::vector<TokenId>> prompts;
  for (const Prompt& input : request.inputs) prompts.push_back(encode(input, "input"));
  const auto job = std::make_shared<EmbeddingJob>(setting_of(call, model), std::move(request));
  call->exchange->on_gone([weak = std::weak_ptr(job)] {
    if (const auto alive = weak.lock()) alive->cancel();
  });
  job->start(prompts);
}

}  // namespace skein
