// The rules by which choices and tasks are scored.
#include <algorithm>

#include "skein/eval/evaluate.h"

namespace skein {

double choice_score(const TargetScore& score, Scoring scoring) {
  switch (scoring) {
    case Scoring::kPhatgoose:
      return score.log_likelihood / static_cast<double>(score.num_tokens);
    case Scoring::kT0:
      return score.log_likelihood;
    case Scoring::kLmEval:
      return score.log_likelihood - score.end_log_likelihood;
  }
  SKEIN_CHECK(false);
  return 0;
}

double score_per_character(const TargetScore& score, const std::string& choice) {
  // Code points: every byte but the continuations. An empty choice counts as one.
  const auto characters = std::count_if(choice.begin(), choice.end(),
                                        [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; });
  return choice_score(score, Scoring::kLmEval) / static_cast<double>(std::max<std::ptrdiff_t>(1, characters));
}

Json result_line(const ExampleResult& result, const std::string& method) {
  Json line = {{"task", result.task}, {"template", result.template_name}, {"id", result.id},
               {"method", method},    {"prediction", result.prediction},  {"target", result.target}};
  if (!result.choice_scores.empty()) line["scores"] = result.choice_scores;
  line["score"] = result.score;
  if (result.metrics.size() > 1) {
    Json metrics = Json::object();
    for (const auto& [name, value] : result.metrics) metrics[name] = value;
    line["metrics"] = metrics;
  }
  line["correct"] = result.correct;
  if (!result.choice_scores.empty()) line["correct_per_character"] = result.correct_per_character;
  return line;
}

}  // namespace skein
