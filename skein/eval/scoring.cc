// The rules by which choices and tasks are scored.
#include <algorithm>
#include <cmath>

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

// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
std::pair<double, double> wilson_interval(std::int64_t hits, std::int64_t count) {
  if (count <= 0) return {0, 1};
  constexpr double z = 1.959963984540054;  // 97.5 % quantile of the normal distribution
  const double n = static_cast<double>(count), p = static_cast<double>(hits) / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {hits == 0 ? 0 : centre - half, hits == count ? 1 : centre + half};
}

Json result_line(const ExampleResult& result, const std::string& method) {
  Json line = {{"task", result.task}, {"template", result.template_name}, {"id", result.id},
               {"method", method},    {"prediction", result.prediction},  {"target", result.target}};
  if (!result.choice_scores.empty()) line["scores"] = result.choice_scores;
  line["correct"] = result.correct;
  if (!result.choice_scores.empty()) line["correct_per_character"] = result.correct_per_character;
  return line;
}

}  // namespace skein
