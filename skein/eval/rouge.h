// ROUGE as Google's rouge-score computes it (C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries",
// 2004): lower case, words of ASCII letters and digits, F-measure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace skein {

// stem: Porter's stems of words longer than three characters (rouge-score's use_stemmer).
std::vector<std::string> rouge_words(std::string_view text, bool stem);

// F-measure of n-grams in common, n >= 1; 0 where either text has none.
double rouge_n(const std::vector<std::string>& prediction, const std::vector<std::string>& reference, int n);
// F-measure of the longest common subsequence.
double rouge_l(const std::vector<std::string>& prediction, const std::vector<std::string>& reference);

}  // namespace skein
