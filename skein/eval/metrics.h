// Scores of generated texts by name, as data files and plans spell them (docs/formats/data.md).
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"

namespace skein {

struct TextMetric {
  const char* name;
  const char* help;
  // 0 to 1, the best over the references (BLEU: against all of them together). references: at least one.
  double (*score)(const std::string& prediction, const std::vector<std::string>& references);
};

const std::vector<TextMetric>& text_metrics();

// "rouge_l", "rouge_l+bleu", "squad" (squad_match+token_f1): an example's score is the mean of its metrics. Empty:
// exact_match. where: for the message on an unknown name.
Result<std::vector<const TextMetric*>> parse_metrics(const std::string& names, const std::string& where);

// The text without the white space (ASCII's) at both ends.
std::string stripped_text(const std::string& text);

}  // namespace skein
