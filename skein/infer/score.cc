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

// Rows an example takes in the decoder: the prompt, and of each choice all but the last token (nothing follows it).
std::int64_t num_rows(const EncodedExample& example, bool encoder_decoder) {
  std::int64_t rows = encoder_decoder ? 1 : static_cast<std::int64_t>(example.input.size());
  for (const auto& choice : choices_of(example)) rows += static_cast<std::int64_t>(choice.size()) - 1;
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

// One pass over examples [begin, end).
void score_batch(const Backbone& backbone, const std::vector<EncodedExample>& examples, std::size_t begin,
                 std::size_t end, ForwardState& state, std::vector<std::vector<TargetScore>>& scores) {
  const bool encoder_decoder = backbone.config().is_encoder_decoder();
  std::vector<SequenceInput> sources, sequences;
  std::vector<Prediction> predictions;
  std::int64_t row = 0;
  for (std::size_t i = begin; i < end; ++i) {
    SequenceInput sequence;
    if (encoder_decoder) {
      sequence.source = static_cast<std::int64_t>(sources.size());
      sources.push_back({examples[i].input});
      sequence.tokens = {static_cast<TokenId>(backbone.config().decoder_start_token)};
    } else {
      sequence.tokens = examples[i].input;
    }
    row += static_cast<std::int64_t>(sequence.tokens.size());
    const std::int64_t last_of_prompt = row - 1;
    const Choices choices = choices_of(examples[i]);
    scores[i].resize(choices.size());
    for (std::size_t c = 0; c < choices.size(); ++c) {
      const auto& choice = choices[c];
      for (std::size_t t = 0; t < choice.size(); ++t) {
        const std::int64_t from = t == 0 ? last_of_prompt : row + static_cast<std::int64_t>(t) - 1;
        predictions.push_back({from, choice[t], &scores[i][c], t + 1 == choice.size()});
      }
      if (choice.size() < 2) continue;  // an end token alone: predicted by the prompt
      sequence.branches.emplace_back(choice.begin(), choice.end() - 1);
      row += static_cast<std::int64_t>(choice.size()) - 1;
    }
    sequences.push_back(std::move(sequence));
  }
  const c10::Device device = backbone.compute().device;
  EncodedSource source;
  if (encoder_decoder) source = backbone.encode(pack(sources, device), state);
  const at::Tensor hidden =
      backbone.forward(pack(sequences, device), encoder_decoder ? &source : nullptr, state);  // (N, D)
  read_scores(backbone, hidden, predictions);
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
