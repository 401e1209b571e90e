#include "skein/infer/score.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"

namespace skein {
namespace {

// Rows of logits at a time: 64 rows of a vocabulary of 262,144 are 64 MB in f32.
constexpr std::int64_t kLogitRows = 64;

// One predicted token: the row whose hidden state predicts it, and where its log-probability goes.
struct Prediction {
  std::int64_t row;
  TokenId token;
  TargetScore* score;
  bool is_end;
};

using Choices = std::vector<std::vector<TokenId>>;

Choices choices_of(const EncodedExample& example) {
  return example.choices.empty() ? Choices{example.target} : example.choices;
}

// Rows an example takes in the decoder: the prompt once and of each choice all but the last token (nothing follows it);
// an encoder-decoder's prompt is one start token, for each choice anew.
std::int64_t num_rows(const EncodedExample& example, bool encoder_decoder) {
  std::int64_t rows = encoder_decoder ? 0 : static_cast<std::int64_t>(example.input.size());
  for (const auto& choice : choices_of(example))
    rows += static_cast<std::int64_t>(choice.size()) - (encoder_decoder ? 0 : 1);
  return rows;
}

void check_length(const BackboneConfig& config, const EncodedExample& example) {
  if (config.is_encoder_decoder()) return;
  std::size_t longest = 0;
  for (const auto& choice : choices_of(example)) longest = std::max(longest, choice.size());
  const auto length = static_cast<std::int64_t>(example.input.size() + longest);
  if (length <= config.max_positions) return;
  throw Failure({concat("an example has ", length, " tokens with its answer; the base reads ", config.max_positions,
                        "; give a smaller --max-input")});
}

// Reads log-probabilities off hidden states, a few rows of logits at a time.
void read_scores(const Backbone& backbone, const at::Tensor& hidden, const std::vector<Prediction>& predictions) {
  const auto longs = at::TensorOptions().dtype(at::kLong);
  for (std::size_t first = 0; first < predictions.size(); first += kLogitRows) {
    const std::size_t count = std::min<std::size_t>(kLogitRows, predictions.size() - first);
    const auto n = static_cast<std::int64_t>(count);
    at::Tensor rows = at::empty({n}, longs), tokens = at::empty({n, 1}, longs);
    for (std::size_t i = 0; i < count; ++i) {
      rows.data_ptr<std::int64_t>()[i] = predictions[first + i].row;
      tokens.data_ptr<std::int64_t>()[i] = predictions[first + i].token;
    }
    const at::Tensor logits =
        backbone.logits(hidden.index_select(0, rows.to(hidden.device()))).to(at::kFloat);  // (n, V)
    const at::Tensor chosen = logits.gather(1, tokens.to(logits.device())).squeeze(1);     // (n)
    const at::Tensor log_probabilities = (chosen - logits.logsumexp(1)).to(at::kCPU, at::kDouble).contiguous();  // (n)
    for (std::size_t i = 0; i < count; ++i) {
      const Prediction& prediction = predictions[first + i];
      const double value = log_probabilities.data_ptr<double>()[i];
      if (std::isnan(value))
        throw Failure(
            {"the model's logits are NaN; its weights, or an expert's, are damaged or overflow in this --dtype"});
      prediction.score->log_likelihood += value;
      ++prediction.score->num_tokens;
      if (prediction.is_end) prediction.score->end_log_likelihood = value;
    }
  }
}

// What one pass computes and which of its rows predict what.
class Batch {
 public:
  explicit Batch(const BackboneConfig& config) : config_(config) {}

  void add(const EncodedExample& example, std::vector<TargetScore>& scores) {
    const Choices choices = choices_of(example);
    scores.resize(choices.size());
    config_.is_encoder_decoder() ? add_answers(example, choices, scores) : add_branches(example, choices, scores);
  }

  void run(const Backbone& backbone, ForwardState& state) const {
    const c10::Device device = backbone.compute().device;
    EncodedSource source;
    if (!sources_.empty()) source = backbone.encode(pack(sources_, device), state);
    const at::Tensor hidden =
        backbone.forward(pack(sequences_, device), sources_.empty() ? nullptr : &source, state);  // (N, D)
    read_scores(backbone, hidden, predictions_);
  }

 private:
  // The first token is predicted by row `before`, the others by the rows from `rest` on.
  void predict(const std::vector<TokenId>& choice, std::int64_t before, std::int64_t rest, TargetScore& score) {
    for (std::size_t t = 0; t < choice.size(); ++t) {
      const std::int64_t row = t == 0 ? before : rest + static_cast<std::int64_t>(t) - 1;
      predictions_.push_back({row, choice[t], &score, t + 1 == choice.size()});
    }
  }

  void add_branches(const EncodedExample& example, const Choices& choices, std::vector<TargetScore>& scores) {
    SequenceInput sequence{.tokens = example.input, .hint = example.hint};
    num_rows_ += static_cast<std::int64_t>(example.input.size());
    const std::int64_t last_of_prompt = num_rows_ - 1;
    for (std::size_t c = 0; c < choices.size(); ++c) {
      predict(choices[c], last_of_prompt, num_rows_, scores[c]);
      if (choices[c].size() < 2) continue;  // an end token alone: the prompt predicts it
      sequence.branches.emplace_back(choices[c].begin(), choices[c].end() - 1);
      num_rows_ += static_cast<std::int64_t>(choices[c].size()) - 1;
    }
    sequences_.push_back(std::move(sequence));
  }

  void add_answers(const EncodedExample& example, const Choices& choices, std::vector<TargetScore>& scores) {
    sources_.push_back({.tokens = example.input, .hint = example.hint});
    for (std::size_t c = 0; c < choices.size(); ++c) {
      predict(choices[c], num_rows_, num_rows_ + 1, scores[c]);
      std::vector<TokenId> tokens = {static_cast<TokenId>(config_.decoder_start_token)};
      tokens.insert(tokens.end(), choices[c].begin(), choices[c].end() - 1);
      num_rows_ += static_cast<std::int64_t>(tokens.size());
      sequences_.push_back({.tokens = std::move(tokens),
                            .source = static_cast<std::int64_t>(sources_.size()) - 1,
                            .hint = example.hint});
    }
  }

  const BackboneConfig& config_;
  std::vector<SequenceInput> sources_, sequences_;
  std::vector<Prediction> predictions_;
  std::int64_t num_rows_ = 0;
};

void score_batch(const Backbone& backbone, const std::vector<EncodedExample>& examples, std::size_t begin,
                 std::size_t end, ForwardState& state, std::vector<std::vector<TargetScore>>& scores) {
  Batch batch(backbone.config());
  for (std::size_t i = begin; i < end; ++i) batch.add(examples[i], scores[i]);
  batch.run(backbone, state);
}

}  // namespace

std::vector<std::vector<TargetScore>> score_choices(const Backbone& backbone,
                                                    const std::vector<EncodedExample>& examples, ForwardState& state,
                                                    std::int64_t max_batch_tokens) {
  const c10::InferenceMode inference;
  const bool encoder_decoder = backbone.config().is_encoder_decoder();
  std::vector<std::vector<TargetScore>> scores(examples.size());
  std::size_t begin = 0;
  std::int64_t rows = 0, source_rows = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    check_length(backbone.config(), examples[i]);
    const std::int64_t more = num_rows(examples[i], encoder_decoder);
    const std::int64_t more_source = encoder_decoder ? static_cast<std::int64_t>(examples[i].input.size()) : 0;
    if (i > begin && std::max(rows + more, source_rows + more_source) > max_batch_tokens) {
      score_batch(backbone, examples, begin, i, state, scores);
      begin = i;
      rows = source_rows = 0;
    }
    if (interrupted()) throw Failure({"interrupted while choices were scored", ErrorKind::kInterrupted});
    rows += more;
    source_rows += more_source;
  }
  if (begin < examples.size()) score_batch(backbone, examples, begin, examples.size(), state, scores);
  return scores;
}

}  // namespace skein
