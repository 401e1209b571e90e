// For tests: an engine over a tiny base in a memory env, and sinks that keep what they are told.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "skein/experts/mixture_slots.h"
#include "skein/experts/random_experts.h"
#include "skein/infer/tiny_model.h"
#include "skein/serve/engine.h"
#include "skein/spec/library.h"

namespace skein::testing {

struct Answer {
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<GeneratedToken> generated;
  std::vector<PromptToken> prompt;
  std::vector<TokenTrace> traces;
  Finish finish;
};

class KeepingSink : public RequestSink {
 public:
  void on_prompt_tokens(std::vector<PromptToken> tokens) override {
    const std::lock_guard lock(mutex_);
    for (PromptToken& token : tokens) answer_.prompt.push_back(std::move(token));
  }
  void on_token(GeneratedToken token) override {
    const std::lock_guard lock(mutex_);
    answer_.tokens.push_back(token.token);
    answer_.text += token.text;
    answer_.generated.push_back(std::move(token));
    changed_.notify_all();
  }
  void on_trace(TokenTrace trace) override {
    const std::lock_guard lock(mutex_);
    answer_.traces.push_back(std::move(trace));
  }
  void on_finish(Finish finish) override {
    const std::lock_guard lock(mutex_);
    answer_.text += finish.text;
    answer_.finish = std::move(finish);
    ++num_finishes_;
    changed_.notify_all();
  }
  Answer wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return num_finishes_ > 0; });
    return answer_;
  }
  void wait_for_tokens(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return answer_.tokens.size() >= count || num_finishes_ > 0; });
  }
  RequestId id = 0;  // of the test
  int num_finishes() const {
    const std::lock_guard lock(mutex_);
    return num_finishes_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Answer answer_;
  int num_finishes_ = 0;
};

// An expert "NAME" with a gate, on every second linear, added to the library "pool" of "base" (made if missing).
inline void put_tiny_expert(Env& env, const std::string& name, std::uint64_t seed) {
  const BaseModel base = or_throw(open_base_model(env, "base"));
  const std::vector<SlotName> slots = slot_names(base.config);
  std::mt19937_64 generator(seed);
  LoraAdapter adapter;
  GateFile gate{"phatgoose", 10, or_throw(base_fingerprint(env, base)), {}};
  adapter.config.rank = 2;
  adapter.config.alpha = 1;
  adapter.config.target_modules = base.config.is_encoder_decoder()
                                      ? std::vector<std::string>{"q", "v", "wo"}
                                      : std::vector<std::string>{"q_proj", "v_proj", "down_proj"};
  for (const AdaptedSlot& slot : or_throw(match_slots(adapter.config, slots))) {
    adapter.modules.push_back(random_lora(slot.slot_idx, slots[slot.slot_idx], 2, generator));
    gate.modules.push_back({slot.slot_idx, 1, random_values(slots[slot.slot_idx].d_in, 1, generator)});
  }
  or_throw(env.make_folders(name));
  or_throw(write_lora_adapter(env, name, adapter, slots));
  or_throw(write_gate(env, name, gate, slots));
  or_throw(write_card(env, name, {{"base_fingerprint", gate.base_fingerprint}}));
  Library library = env.exists("pool/library.json") ? or_throw(open_library(env, "pool"))
                                                    : or_throw(create_library(env, "pool", base));
  or_throw(add_expert(env, library, base, name, {}));
}

inline void put_tiny_mixture(Env& env, const std::string& folder, const MixtureConfig& config) {
  const BaseModel base = or_throw(open_base_model(env, "base"));
  MixtureFile mixture = new_mixture(config, base.config, {.router_std = 1, .seed = 5});
  std::mt19937_64 generator(9);
  for (MixtureModule& module : mixture.modules) {  // experts that do something
    for (auto* values : {&module.scaling, &module.b}) {
      const std::vector<float> noise = random_values(static_cast<std::int64_t>(values->size()), 0.5, generator);
      for (std::size_t i = 0; i < noise.size(); ++i) (*values)[i] += noise[i];
    }
  }
  mixture.base_fingerprint = or_throw(base_fingerprint(env, base));
  or_throw(env.make_folders(folder));
  or_throw(write_mixture(env, folder, mixture, base.config));
}

// The base, a library of three experts, a mixture of vectors and one of LoRAs that routes by the sentence.
struct TinyEngine {
  explicit TinyEngine(Family family) : env(make_memory_env()) {
    put_tiny_model(*env, "base", family);
    put_tiny_expert(*env, "one", 1);
    put_tiny_expert(*env, "two", 2);
    put_tiny_expert(*env, "three", 3);
    put_tiny_mixture(*env, "vectors", {.kind = MixtureKind::kMov, .num_experts = 3});
    put_tiny_mixture(
        *env, "loras",
        {.kind = MixtureKind::kMolora, .num_experts = 2, .rank = 2, .router_input = RouterInput::kSentence});
    options.model.base = "base";
    options.model.library = "pool";
    options.mixtures = {"vectors", "loras"};
  }
  // Made when it is first asked for: options may be changed before.
  Engine& engine() {
    if (made == nullptr) made = Engine::load(*env, options);
    return *made;
  }
  std::shared_ptr<KeepingSink> submit(Request request) {
    auto sink = std::make_shared<KeepingSink>();
    const auto outcome = engine().submit(std::move(request), sink);
    if (const auto* refusal = std::get_if<Refusal>(&outcome)) throw Failure({refusal->message});
    sink->id = std::get<RequestId>(outcome);
    return sink;
  }
  Answer answer(Request request) { return submit(std::move(request))->wait(); }

  std::unique_ptr<Env> env;
  EngineOptions options;
  std::unique_ptr<Engine> made;
};

inline std::vector<ModelChoice> tiny_choices() {
  using Kind = ModelChoice::Kind;
  return {{},
          {.kind = Kind::kExpert, .name = "two"},
          {.kind = Kind::kRouter, .router = default_router("phatgoose")},
          {.kind = Kind::kRouter, .router = default_router("smear")},
          {.kind = Kind::kMixture, .name = "vectors"},
          {.kind = Kind::kMixture, .name = "loras"}};
}

inline std::vector<std::vector<TokenId>> tiny_prompts() {
  std::vector<std::vector<TokenId>> prompts = {{5}, {70, 71, 72}, {}};
  for (int i = 0; i < 41; ++i) prompts.back().push_back(3 + (i * 37) % 250);
  return prompts;
}

}  // namespace skein::testing
