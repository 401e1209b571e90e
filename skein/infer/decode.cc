#include "skein/infer/decode.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/infer/sampler.h"
#include "skein/infer/stop_texts.h"
#include "skein/text/stream_decoder.h"

namespace skein {
namespace {

using OnText = std::function<void(std::string_view)>;

// One text in the making.
class Generation {
 public:
  Generation(const Backbone& backbone, const Tokenizer& tokenizer, std::size_t prompt_length,
             const DecodeOptions& options, OnText on_text)
      : options_(options),
        // The answer of an encoder-decoder is a text of its own; a decoder's goes on from the prompt.
        stream_(tokenizer, true, !backbone.config().is_encoder_decoder()),
        stops_(options.stop),
        on_text_(std::move(on_text)),
        left_(options.max_new_tokens) {
    const BackboneConfig& config = backbone.config();
    const bool bounded = !config.is_encoder_decoder();
    const auto length = bounded ? static_cast<std::int64_t>(prompt_length) : 1;
    if (bounded) left_ = std::min(left_, config.max_positions - length);
    const auto cache_options = at::TensorOptions().dtype(backbone.compute().dtype).device(backbone.compute().device);
    cache_ = std::make_unique<KvSequence>(config, cache_options, length + std::max<std::int64_t>(left_, 0));
    if (left_ <= 0) finish();
  }

  bool done() const { return done_; }
  KvSequence* cache() const { return cache_.get(); }
  const std::vector<TokenId>& tokens() const { return result_.tokens; }

  void take(TokenId token, bool is_end) {
    if (is_end && !options_.ignore_end) {
      result_.ended = true;
      return finish();
    }
    result_.tokens.push_back(token);
    emit(stops_.push(stream_.push(token)));
    if (stops_.stopped()) {
      result_.ended = true;
      return finish();
    }
    if (--left_ == 0) finish();
  }

  Decoded result() && { return std::move(result_); }

 private:
  void emit(const std::string& text) {
    if (text.empty()) return;
    result_.text += text;
    if (on_text_) on_text_(text);
  }
  void finish() {
    if (!stops_.stopped()) {
      emit(stops_.push(stream_.finish()));
      if (!stops_.stopped()) emit(stops_.finish());
    }
    done_ = true;
    cache_.reset();
  }

  const DecodeOptions& options_;
  StreamDecoder stream_;
  StopTexts stops_;
  OnText on_text_;
  std::int64_t left_;  // tokens that may still come
  std::unique_ptr<KvSequence> cache_;
  Decoded result_;
  bool done_ = false;
};

void check_prompt(const BackboneConfig& config, const std::vector<TokenId>& prompt) {
  if (prompt.empty()) throw Failure({"an empty prompt: there is nothing to go on from", ErrorKind::kUsage});
  const auto length = static_cast<std::int64_t>(prompt.size());
  if (!config.is_encoder_decoder() && length >= config.max_positions) {
    throw Failure({concat("the prompt has ", length, " tokens; the base reads ", config.max_positions,
                          " with the answer included, so the prompt must be shorter")});
  }
}

// Picks for each row of logits (n, V).
class Picker {
 public:
  Picker(const BackboneConfig& config, const Tokenizer& tokenizer, const DecodeOptions& options)
      : options_(options), ends_(config.eos_tokens.begin(), config.eos_tokens.end()) {
    ends_.insert(ends_.end(), tokenizer.special().end_of_generation.begin(),
                 tokenizer.special().end_of_generation.end());
  }

  std::vector<TokenId> pick(const at::Tensor& logits, const std::vector<Generation*>& rows) const {
    return options_.temperature > 0 ? sample(logits, rows) : greedy(logits);
  }
  bool is_end(TokenId token) const { return std::find(ends_.begin(), ends_.end(), token) != ends_.end(); }

 private:
  static std::vector<TokenId> greedy(const at::Tensor& logits) {
    const auto [best, ids] = logits.max(1);  // (n), (n); of equals the first
    if (best.isnan().any().item<bool>()) refuse_nan_logits();
    const at::Tensor on_cpu = ids.to(at::kCPU).contiguous();
    const auto* values = on_cpu.data_ptr<std::int64_t>();
    return {values, values + on_cpu.numel()};
  }
  std::vector<TokenId> sample(const at::Tensor& logits, const std::vector<Generation*>& rows) const {
    const at::Tensor floats = logits.to(at::kCPU, at::kFloat).contiguous();  // (n, V)
    const auto width = static_cast<std::size_t>(floats.size(1));
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::span<const float> row(floats.data_ptr<float>() + i * width, width);
      const double draw = uniform_draw(options_.seed, rows[i]->tokens().size());
      tokens.push_back(sample_token(row, options_.temperature, options_.top_p, draw));
    }
    return tokens;
  }

  const DecodeOptions& options_;
  std::vector<std::int64_t> ends_;
};

// The last row of each segment: what its next token is read from.
at::Tensor last_rows(const at::Tensor& hidden, const PackedBatch& batch) {
  if (batch.num_tokens() == static_cast<std::int64_t>(batch.segments.size())) return hidden;
  std::vector<std::int64_t> rows;
  for (const Segment& segment : batch.segments) rows.push_back(segment.begin + segment.length - 1);
  return hidden.index_select(0, at::tensor(rows).to(hidden.device()));
}

class Decoding {
 public:
  Decoding(const Backbone& backbone, const Picker& picker, const DecodeOptions& options, ForwardState& state)
      : backbone_(backbone), picker_(picker), options_(options), state_(state) {}

  void run(const std::vector<std::vector<TokenId>>& prompts, std::vector<Generation>& generations) {
    std::vector<Generation*> active;
    std::vector<std::shared_ptr<const SequenceHint>> hints;  // of the active
    std::vector<SequenceInput> inputs, sources;
    const BackboneConfig& config = backbone_.config();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      if (generations[i].done()) continue;
      active.push_back(&generations[i]);
      hints.push_back(options_.hints.empty() ? nullptr : options_.hints.at(i));
      SequenceInput input{.tokens = prompts[i], .cache = generations[i].cache(), .hint = hints.back()};
      if (config.is_encoder_decoder()) {
        input.source = static_cast<std::int64_t>(sources.size());
        input.tokens = {static_cast<TokenId>(config.decoder_start_token)};
        sources.push_back({.tokens = prompts[i], .hint = hints.back()});
      } else {
        read_ahead(backbone_, input, options_.rows_at_once, state_);
      }
      inputs.push_back(std::move(input));
    }
    std::optional<EncodedSource> source;
    if (!sources.empty()) source = backbone_.encode(pack(sources, backbone_.compute().device), state_);
    while (!active.empty()) {
      if (interrupted()) throw Failure({"interrupted while text was generated", ErrorKind::kInterrupted});
      step(inputs, source ? &*source : nullptr, active);
      source.reset();  // the caches hold its keys and values from now on
      inputs.clear();
      for (std::size_t i = 0, left = 0; i < active.size(); ++i) {
        if (active[i]->done()) continue;
        inputs.push_back({.tokens = {active[i]->tokens().back()}, .cache = active[i]->cache(), .hint = hints[i]});
        active[left] = active[i];
        hints[left++] = hints[i];
      }
      active.resize(inputs.size());
    }
  }

 private:
  void step(const std::vector<SequenceInput>& inputs, const EncodedSource* source,
            const std::vector<Generation*>& active) {
    const PackedBatch batch = pack(inputs, backbone_.compute().device);
    const at::Tensor hidden = last_rows(backbone_.forward(batch, source, state_), batch);  // (n, D)
    const std::vector<TokenId> tokens = picker_.pick(backbone_.logits(hidden), active);
    for (std::size_t i = 0; i < active.size(); ++i) active[i]->take(tokens[i], picker_.is_end(tokens[i]));
  }

  const Backbone& backbone_;
  const Picker& picker_;
  const DecodeOptions& options_;
  ForwardState& state_;
};

std::vector<Decoded> decode_all(const Backbone& backbone, const Tokenizer& tokenizer,
                                const std::vector<std::vector<TokenId>>& prompts, const DecodeOptions& options,
                                ForwardState& state, const OnText& on_text) {
  const c10::InferenceMode inference;
  std::vector<Generation> generations;
  for (const std::vector<TokenId>& prompt : prompts) {
    check_prompt(backbone.config(), prompt);
    generations.emplace_back(backbone, tokenizer, prompt.size(), options, on_text);
  }
  const Picker picker(backbone.config(), tokenizer, options);
  Decoding(backbone, picker, options, state).run(prompts, generations);
  std::vector<Decoded> results;
  for (Generation& generation : generations) results.push_back(std::move(generation).result());
  return results;
}

}  // namespace

void read_ahead(const Backbone& backbone, SequenceInput& input, std::int64_t rows_at_once, ForwardState& state) {
  if (state.filler != nullptr && state.filler->reads_whole_prompts()) return;
  const std::int64_t piece = std::max<std::int64_t>(rows_at_once, 2);
  const std::vector<TokenId> all = std::move(input.tokens);
  auto at = all.begin();
  for (; all.end() - at > piece + 1; at += piece) {
    if (interrupted()) throw Failure({"interrupted while a prompt was read", ErrorKind::kInterrupted});
    input.tokens.assign(at, at + piece);
    backbone.forward(pack({input}, backbone.compute().device), nullptr, state);
  }
  input.tokens.assign(at, all.end());
}

Decoded decode(const Backbone& backbone, const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
               const DecodeOptions& options, ForwardState& state,
               const std::function<void(std::string_view)>& on_text) {
  return std::move(decode_all(backbone, tokenizer, {prompt}, options, state, on_text).front());
}

std::vector<Decoded> decode_batch(const Backbone& backbone, const Tokenizer& tokenizer,
                                  const std::vector<std::vector<TokenId>>& prompts, const DecodeOptions& options,
                                  ForwardState& state) {
  return decode_all(backbone, tokenizer, prompts, options, state, nullptr);
}

}  // namespace skein
