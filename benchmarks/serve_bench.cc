// Throughput of the engine in this process, as JSON on stdout: generated tokens per second of 1, 2, 4, ... streams at
// once, each from a prompt of its own.
//
//   serve_bench --base models/smollm2.gguf [--library LIB] [--model base|router:KIND|experts] [--dtype f32|bf16]
//               [--streams 16] [--prompt-tokens 64] [--new-tokens 64] [--threads 2]
// --model experts: stream i takes the library's expert i, so that every stream has another.
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>

#include "benchmarks/passes.h"
#include "benchmarks/timing.h"
#include "skein/base/concat.h"
#include "skein/serve/engine.h"

namespace {

using namespace skein;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Waits for `count` answers and keeps when each one's first token came.
class Finishes : public RequestSink {
 public:
  explicit Finishes(int count) : left_(count) {}
  void on_token(GeneratedToken) override {
    const std::lock_guard lock(mutex_);
    ++tokens_;
    if (tokens_ == 1) first_token_ = Clock::now();
  }
  void on_finish(Finish finish) override {
    const std::lock_guard lock(mutex_);
    if (!finish.failure.empty()) std::cerr << finish.failure << "\n";
    if (--left_ == 0) done_.notify_all();
  }
  // Tokens, and since when the first.
  std::pair<std::int64_t, Clock::time_point> wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return {tokens_, first_token_};
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int left_;
  std::int64_t tokens_ = 0;
  Clock::time_point first_token_;
};

ModelChoice choice_of(const std::string& model, const std::vector<ModelName>& models, int stream) {
  if (model == "base") return {};
  if (model.starts_with("router:")) {
    return {.kind = ModelChoice::Kind::kRouter, .router = default_router(model.substr(7))};
  }
  std::vector<ModelChoice> experts;
  for (const ModelName& name : models) {
    if (name.choice.kind == ModelChoice::Kind::kExpert) experts.push_back(name.choice);
  }
  if (experts.empty()) throw Failure({"--model experts needs --library"});
  return experts[static_cast<std::size_t>(stream) % experts.size()];
}

}  // namespace

int main(int argc, char** argv) {
  EngineOptions options;
  options.model.compute = or_throw(compute_options("cpu", argument(argc, argv, "dtype", "")));
  options.model.base = argument(argc, argv, "base", "models/smollm2.gguf");
  options.model.library = argument(argc, argv, "library", "");
  options.reuses_prefixes = false;
  set_compute_threads(static_cast<int>(integer_argument(argc, argv, "threads", 0)));
  const std::string model = argument(argc, argv, "model", "base");
  const std::int64_t num_prompt = integer_argument(argc, argv, "prompt-tokens", 64);
  const std::int64_t num_new = integer_argument(argc, argv, "new-tokens", 64);
  const int most = static_cast<int>(integer_argument(argc, argv, "streams", 16));
  const auto engine = Engine::load(real_env(), options);
  const std::vector<ModelName> models = engine->models();
  const auto run = [&](int streams) {
    const auto sink = std::make_shared<Finishes>(streams);
    const auto started = Clock::now();
    for (int i = 0; i < streams; ++i) {
      std::vector<TokenId> prompt = synthetic_tokens(num_prompt);
      prompt.front() += i;
      const auto outcome = engine->submit(
          {.prompt = prompt, .model = choice_of(model, models, i), .max_new_tokens = num_new, .ignore_end = true},
          sink);
      if (const auto* refusal = std::get_if<Refusal>(&outcome)) throw Failure({refusal->message});
    }
    const auto [tokens, first] = sink->wait();
    // Of the whole, prompts included; of writing alone, from the first token on.
    return std::pair(static_cast<double>(tokens) / seconds_since(started),
                     static_cast<double>(tokens - streams) / seconds_since(first));
  };
  run(1);  // not counted
  std::string lines;
  for (int streams = 1; streams <= most; streams *= 2) {
    const auto [whole, writing] = run(streams);
    lines += concat(lines.empty() ? "" : ",\n ", "{\"streams\": ", streams, ", \"tokens_per_s\": ", whole,
                    ", \"writing_tokens_per_s\": ", writing, "}");
  }
  std::cout << "[" << lines << "]\n";
}
