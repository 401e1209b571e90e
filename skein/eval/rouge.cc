#include "skein/eval/rouge.h"

#include <algorithm>
#include <map>

#include "skein/eval/porter_stemmer.h"
#include "skein/eval/python_text.h"

namespace skein {
namespace {

double f_measure(double common, double num_predicted, double num_reference) {
  const double precision = common / std::max(num_predicted, 1.0), recall = common / std::max(num_reference, 1.0);
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

using Counts = std::map<std::vector<std::string>, int>;

Counts ngrams(const std::vector<std::string>& words, std::size_t n) {
  Counts counts;
  for (std::size_t i = 0; i + n <= words.size(); ++i)
    ++counts[{words.begin() + static_cast<std::ptrdiff_t>(i), words.begin() + static_cast<std::ptrdiff_t>(i + n)}];
  return counts;
}

int total(const Counts& counts) {
  int sum = 0;
  for (const auto& [ngram, count] : counts) sum += count;
  return sum;
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text, bool stem) {
  std::vector<std::string> words(1);
  for (const char c : lower_text(text)) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  if (stem) {
    for (std::string& word : words) {
      if (word.size() > 3) word = porter_stem(word);
    }
  }
  return words;
}

double rouge_n(const std::vector<std::string>& prediction, const std::vector<std::string>& reference, int n) {
  const Counts predicted = ngrams(prediction, static_cast<std::size_t>(n));
  const Counts wanted = ngrams(reference, static_cast<std::size_t>(n));
  int common = 0;
  for (const auto& [ngram, count] : wanted) {
    const auto it = predicted.find(ngram);
    if (it != predicted.end()) common += std::min(count, it->second);
  }
  return f_measure(common, total(predicted), total(wanted));
}

double rouge_l(const std::vector<std::string>& prediction, const std::vector<std::string>& reference) {
  if (prediction.empty() || reference.empty()) return 0;
  // lengths[j]: of the longest common subsequence of the reference's words so far and the prediction's first j.
  std::vector<int> lengths(prediction.size() + 1, 0);
  for (const std::string& word : reference) {
    int diagonal = 0;
    for (std::size_t j = 1; j <= prediction.size(); ++j) {
      const int above = lengths[j];
      lengths[j] = word == prediction[j - 1] ? diagonal + 1 : std::max(above, lengths[j - 1]);
      diagonal = above;
    }
  }
  return f_measure(lengths.back(), static_cast<double>(prediction.size()), static_cast<double>(reference.size()));
}

}  // namespace skein
