#include "skein/eval/metrics.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/eval/bleu.h"
#include "skein/eval/rouge.h"
#include "skein/eval/squad.h"

namespace skein {
namespace {

using References = std::vector<std::string>;

template <typename Score>
double best(const References& references, const Score& score) {
  double most = 0;
  for (const std::string& reference : references) most = std::max(most, static_cast<double>(score(reference)));
  return most;
}

template <typename Score>
double best_rouge(const std::string& prediction, const References& references, bool stem, const Score& score) {
  const std::vector<std::string> words = rouge_words(prediction, stem);
  return best(references, [&](const std::string& reference) { return score(words, rouge_words(reference, stem)); });
}

double exact_match(const std::string& prediction, const References& references) {
  return best(references, [&](const std::string& r) { return stripped_text(r) == stripped_text(prediction); });
}
double squad_match(const std::string& prediction, const References& references) {
  return best(references, [&](const std::string& r) { return squad_exact_match(prediction, r); });
}
double token_f1(const std::string& prediction, const References& references) {
  return best(references, [&](const std::string& r) { return squad_f1(prediction, r); });
}
double rouge_1(const std::string& prediction, const References& references) {
  return best_rouge(prediction, references, false, [](const auto& p, const auto& r) { return rouge_n(p, r, 1); });
}
double rouge_2(const std::string& prediction, const References& references) {
  return best_rouge(prediction, references, false, [](const auto& p, const auto& r) { return rouge_n(p, r, 2); });
}
double plain_rouge_l(const std::string& prediction, const References& references) {
  return best_rouge(prediction, references, false, rouge_l);
}
double stemmed_rouge_l(const std::string& prediction, const References& references) {
  return best_rouge(prediction, references, true, rouge_l);
}
double bleu(const std::string& prediction, const References& references) {
  return sentence_bleu(bleu_counts(prediction, references)) / 100;
}

}  // namespace

const std::vector<TextMetric>& text_metrics() {
  static const std::vector<TextMetric> metrics = {
      {"exact_match", "equal to a reference, white space at both ends aside", exact_match},
      {"squad_match", "SQuAD's exact match: case, punctuation and articles aside", squad_match},
      {"token_f1", "SQuAD's F1 of the words in common", token_f1},
      {"rouge_1", "ROUGE-1, F-measure (rouge-score)", rouge_1},
      {"rouge_2", "ROUGE-2, F-measure (rouge-score)", rouge_2},
      {"rouge_l", "ROUGE-L, F-measure (rouge-score)", plain_rouge_l},
      {"rouge_l_stemmed", "the same of Porter's stems (use_stemmer)", stemmed_rouge_l},
      {"bleu", "sentence BLEU / 100 (sacrebleu, 13a); a task's summary also has the corpus's", bleu},
  };
  return metrics;
}

Result<std::vector<const TextMetric*>> parse_metrics(const std::string& names, const std::string& where) {
  if (names.empty()) return parse_metrics("exact_match", where);
  if (names == "squad") return parse_metrics("squad_match+token_f1", where);
  std::vector<const TextMetric*> found;
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find('+', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    const auto metric = std::find_if(text_metrics().begin(), text_metrics().end(),
                                     [&](const TextMetric& known) { return known.name == name; });
    if (metric == text_metrics().end()) {
      std::string known;
      for (const TextMetric& each : text_metrics()) known += concat(known.empty() ? "" : ", ", each.name);
      return Error{concat(where, ": metric \"", printable(name), "\"; expected rank_accuracy, squad, ", known,
                          ", or several joined by +")};
    }
    found.push_back(&*metric);
    begin = end + 1;
  }
  return found;
}

std::string stripped_text(const std::string& text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace skein
