#include "skein/eval/evaluate.h"

#include <algorithm>
#include <map>
#include <span>
#include <tuple>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/dist/together.h"
#include "skein/eval/metrics.h"
#include "skein/eval/statistics.h"
#include "skein/infer/decode.h"

namespace skein {
namespace {

bool is_ranked(const Example& example) {
  return !example.choices.empty() && (example.metric.empty() || example.metric == "rank_accuracy");
}

std::vector<std::string> accepted_texts(const Example& example) {
  return example.references.empty() ? std::vector<std::string>{example.target} : example.references;
}

template <typename Score>
std::size_t first_best(std::size_t count, const Score& score) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < count; ++i) {
    if (score(i) > score(best)) best = i;
  }
  return best;
}

void rank(const Example& example, const std::vector<TargetScore>& scores, Scoring scoring, ExampleResult& result) {
  for (const TargetScore& score : scores) result.choice_scores.push_back(choice_score(score, scoring));
  const std::size_t best = first_best(scores.size(), [&](std::size_t i) { return result.choice_scores[i]; });
  const std::size_t best_per_character =
      first_best(scores.size(), [&](std::size_t i) { return score_per_character(scores[i], example.choices[i]); });
  const auto is_right = [&](const std::string& choice) {
    return choice == example.target ||
           std::find(example.references.begin(), example.references.end(), choice) != example.references.end();
  };
  result.prediction = example.choices[best];
  result.correct = is_right(result.prediction);
  result.correct_per_character = is_right(example.choices[best_per_character]);
  result.score = result.correct ? 1 : 0;
}

void match(const Example& example, const std::vector<const TextMetric*>& metrics, const std::string& text,
           ExampleResult& result) {
  result.prediction = stripped_text(text);
  const std::vector<std::string> references = accepted_texts(example);
  for (const TextMetric* metric : metrics) {
    result.metrics.emplace_back(metric->name, metric->score(result.prediction, references));
    if (result.metrics.back().first == "bleu") result.bleu = bleu_counts(result.prediction, references);
    result.score += result.metrics.back().second / static_cast<double>(metrics.size());
  }
  result.correct = result.score >= 1;
}

// What a rank found out about an example, for the others.
Json answer_json(const ExampleResult& result) {
  return {result.prediction,
          result.choice_scores,
          result.score,
          result.metrics,
          result.bleu.matches,
          result.bleu.predicted,
          result.bleu.prediction_length,
          result.bleu.reference_length,
          result.correct,
          result.correct_per_character};
}

void set_answer(const Json& answer, ExampleResult& result) {
  answer[0].get_to(result.prediction);
  answer[1].get_to(result.choice_scores);
  answer[2].get_to(result.score);
  answer[3].get_to(result.metrics);
  answer[4].get_to(result.bleu.matches);
  answer[5].get_to(result.bleu.predicted);
  answer[6].get_to(result.bleu.prediction_length);
  answer[7].get_to(result.bleu.reference_length);
  answer[8].get_to(result.correct);
  answer[9].get_to(result.correct_per_character);
}

// Examples go through in slices of about one batch, so that the bar moves; no score depends on the slices.
class TaskRun {
 public:
  TaskRun(const LoadedModel& model, const EvalOptions& options, std::string task,
          const std::vector<const Example*>& examples)
      : model_(model),
        options_(options),
        prompt_(options.prompt),
        examples_(examples),
        progress_(concat("eval ", task), static_cast<std::int64_t>(examples.size()), "examples") {
    prompt_.joined = options.scoring == Scoring::kLmEval;
    result_.task = std::move(task);
  }

  TaskResult run() && {
    for (const Example* example : examples_) {
      const std::string where = concat(printable(example->task), ", ", printable(example->id));
      metrics_.push_back(is_ranked(*example) ? std::vector<const TextMetric*>()
                                             : or_throw(parse_metrics(example->metric, where)));
      result_.examples.push_back({.task = example->task,
                                  .template_name = example->template_name,
                                  .id = example->id,
                                  .prediction = "",
                                  .target = example->target});
    }
    if (is_alone()) {
      answer_share();
    } else {
      together(*options_.comm, [&] { answer_share(); });
      exchange();
    }
    if (num_cut_ > 0)
      log_info(concat(result_.task, ": ", num_cut_, " of ", num_done_, " inputs were longer than ", prompt_.max_input,
                      " tokens and lost their end"));
    summarise();
    return std::move(result_);
  }

 private:
  bool is_alone() const { return options_.comm == nullptr || options_.comm->size() == 1; }

  // The examples of this rank: every size-th.
  void answer_share() {
    const auto first = static_cast<std::size_t>(is_alone() ? 0 : options_.comm->rank());
    const auto step = static_cast<std::size_t>(is_alone() ? 1 : options_.comm->size());
    for (std::size_t i = first; i < examples_.size(); i += step) {
      add(i);
      if (rows_ >= options_.max_batch_tokens) flush();
    }
    flush();
  }

  // Every rank gets what the others found.
  void exchange() {
    Comm& comm = *options_.comm;
    const auto size = static_cast<std::size_t>(comm.size());
    Json own = Json::array();
    for (std::size_t i = static_cast<std::size_t>(comm.rank()); i < examples_.size(); i += size)
      own.push_back(answer_json(result_.examples[i]));
    const std::vector<std::uint8_t> bytes = Json::to_cbor(own);  // exact, whatever the numbers and the text
    const auto parts = comm.gather(std::as_bytes(std::span(bytes)), 0);
    for (std::size_t rank = 0; rank < size; ++rank) {
      std::string part;
      if (comm.rank() == 0) part.assign(reinterpret_cast<const char*>(parts[rank].data()), parts[rank].size());
      const Json answers = Json::from_cbor(broadcast_text(comm, std::move(part), 0));
      for (std::size_t j = 0; j < answers.size(); ++j) set_answer(answers[j], result_.examples[rank + j * size]);
    }
  }

  void add(std::size_t i) {
    if (interrupted())
      throw Failure(
          {concat("interrupted in task ", result_.task, "; finished tasks are kept"), ErrorKind::kInterrupted});
    const Example& example = *examples_[i];
    EncodedExample encoded = encode_example(example, *model_.tokenizer, model_.base.config, prompt_);
    encoded.hint = model_.hint_of(example);
    num_cut_ += encoded.input_was_cut ? 1 : 0;
    rows_ += static_cast<std::int64_t>(encoded.input.size());
    if (is_ranked(example)) {
      for (const auto& choice : encoded.choices) rows_ += static_cast<std::int64_t>(choice.size());
      ranked_.push_back(i);
      to_rank_.push_back(std::move(encoded));
    } else {
      rows_ += options_.max_new_tokens;
      matched_.push_back(i);
      if (encoded.hint != nullptr) hints_.push_back(encoded.hint);
      to_match_.push_back(std::move(encoded.input));
    }
  }

  void flush() {
    if (!ranked_.empty()) {
      ForwardState state = model_.new_state();
      const auto scores = score_choices(*model_.backbone, to_rank_, state, options_.max_batch_tokens);
      for (std::size_t j = 0; j < ranked_.size(); ++j)
        rank(*examples_[ranked_[j]], scores[j], options_.scoring, result_.examples[ranked_[j]]);
    }
    if (!matched_.empty()) {
      ForwardState state = model_.new_state();
      const auto texts =
          decode_batch(*model_.backbone, *model_.tokenizer, to_match_,
                       {.max_new_tokens = options_.max_new_tokens, .stop = options_.stop, .hints = hints_}, state);
      for (std::size_t j = 0; j < matched_.size(); ++j)
        match(*examples_[matched_[j]], metrics_[matched_[j]], texts[j].text, result_.examples[matched_[j]]);
    }
    num_done_ += static_cast<std::int64_t>(ranked_.size() + matched_.size());
    progress_.update(num_done_);
    ranked_.clear();
    matched_.clear();
    to_rank_.clear();
    to_match_.clear();
    hints_.clear();
    rows_ = 0;
  }

  void summarise() {
    std::map<std::string, std::int64_t> answers;
    for (const Example* example : examples_) {
      if (is_ranked(*example)) {
        const auto place =
            std::find(example->choices.begin(), example->choices.end(), example->target) - example->choices.begin();
        ++answers[concat("place ", place)];
        result_.chance += 1 / static_cast<double>(example->choices.size());
      } else {
        ++answers[concat("text ", example->target)];
      }
    }
    result_.num_examples = static_cast<std::int64_t>(examples_.size());
    const auto count = static_cast<double>(result_.num_examples);
    std::int64_t most = 0;
    for (const auto& [answer, times] : answers) most = std::max(most, times);
    result_.chance /= count;
    result_.majority = static_cast<double>(most) / count;
    summarise_scores();
    average_metrics();
  }

  void summarise_scores() {
    std::vector<ScoredExample> scored;
    std::int64_t hits = 0;
    bool plain = true;  // one score of 0 or 1 per id
    std::map<std::pair<std::string, std::string>, int> seen;
    for (const ExampleResult& example : result_.examples) {
      // Data whose ids do not tell examples apart: each line is an example of its own.
      const int times = seen[{example.id, example.template_name}]++;
      scored.push_back({example.task, example.template_name, times == 0 ? example.id : concat(example.id, " #", times),
                        example.score});
      hits += example.correct ? 1 : 0;
      plain = plain && (example.score == 0 || example.score == 1);
    }
    const Comparison alone = or_throw(compare_methods({"it"}, {scored}, {{result_.task}},
                                                      {.over_templates = options_.over_templates, .reference = "it"}));
    const Estimate& score = alone.groups.front().scores.front();
    result_.score = score.value;
    std::tie(result_.interval_low, result_.interval_high) = plain && alone.num_ids.front() == result_.num_examples
                                                                ? wilson_interval(hits, result_.num_examples)
                                                                : std::make_pair(score.low, score.high);
  }

  void average_metrics() {
    BleuCounts bleu;
    std::map<std::string, std::pair<double, double>> sums;  // per metric: sum and count
    for (const ExampleResult& example : result_.examples) {
      for (const auto& [name, value] : example.metrics) {
        sums[name].first += value;
        sums[name].second += 1;
      }
      bleu += example.bleu;
    }
    for (const auto& [name, sum] : sums) result_.metrics.emplace_back(name, sum.first / sum.second);
    if (sums.contains("bleu")) result_.metrics.emplace_back("corpus_bleu", corpus_bleu(bleu) / 100);
  }

  const LoadedModel& model_;
  const EvalOptions& options_;
  PromptOptions prompt_;
  const std::vector<const Example*>& examples_;
  Progress progress_;
  TaskResult result_;
  std::vector<std::vector<const TextMetric*>> metrics_;  // per example; none of ranked ones
  std::vector<std::size_t> ranked_, matched_;            // places of the examples that wait
  std::vector<EncodedExample> to_rank_;
  std::vector<std::vector<TokenId>> to_match_;
  std::vector<std::shared_ptr<const SequenceHint>> hints_;  // of to_match_, where the router needs some
  std::int64_t rows_ = 0, num_done_ = 0, num_cut_ = 0;
};

}  // namespace

std::vector<TaskResult> evaluate(const LoadedModel& model, const std::vector<Example>& examples,
                                 const EvalOptions& options) {
  std::vector<std::string> tasks;  // in order of their first example
  std::map<std::string, std::vector<const Example*>> by_task;
  for (const Example& example : examples) {
    std::vector<const Example*>& members = by_task[example.task];
    if (members.empty()) tasks.push_back(example.task);
    if (options.limit == 0 || static_cast<std::int64_t>(members.size()) < options.limit) members.push_back(&example);
  }
  std::vector<TaskResult> results;
  for (const std::string& task : tasks) results.push_back(TaskRun(model, options, task, by_task[task]).run());
  return results;
}

}  // namespace skein
