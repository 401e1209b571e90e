#include "skein/eval/bleu.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "skein/base/check.h"
#include "skein/eval/python_text.h"

namespace skein {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_stop(char c) { return c == '.' || c == ','; }

// mteval-v13a's class of symbols that always stand alone: ASCII punctuation but ' , - . and no letters or digits.
bool is_symbol(char c) {
  return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') ||
         (c >= ':' && c <= '@') || c == '/';
}

// The four substitutions of sacrebleu's TokenizerRegexp, each one pass from left to right. Bytes stand for characters:
// of a longer character only the last can precede, and only the first can follow, what the patterns look for.
std::string space_symbols(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (is_symbol(c)) {
      (out += ' ') += c;
      out += ' ';
    } else {
      out += c;
    }
  }
  return out;
}

// At each pair of neighbours for which `matches`, which no earlier match took part in: its two characters in `form`,
// where 1 and 2 stand for them.
template <typename Matches>
std::string rewrite_pairs(const std::string& text, std::string_view form, const Matches& matches) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !matches(text[i], text[i + 1])) {
      out += text[i];
      continue;
    }
    for (const char c : form) out += c == '1' ? text[i] : c == '2' ? text[i + 1] : c;
    ++i;
  }
  return out;
}

using Counts = std::map<std::vector<std::string>, std::int64_t>;

Counts ngrams(const std::vector<std::string>& words, std::size_t n) {
  Counts counts;
  for (std::size_t i = 0; i + n <= words.size(); ++i)
    ++counts[{words.begin() + static_cast<std::ptrdiff_t>(i), words.begin() + static_cast<std::ptrdiff_t>(i + n)}];
  return counts;
}

double bleu(const BleuCounts& counts, bool effective_order) {
  if (std::all_of(counts.matches.begin(), counts.matches.end(), [](std::int64_t n) { return n == 0; })) return 0;
  double brevity = 1;
  if (counts.prediction_length < counts.reference_length) {
    brevity =
        std::exp(1 - static_cast<double>(counts.reference_length) / static_cast<double>(counts.prediction_length));
  }
  double smoothing = 1, sum = 0;
  int order = effective_order ? 0 : kBleuOrder;
  for (std::size_t n = 0; n < kBleuOrder; ++n) {
    const auto total = static_cast<double>(counts.predicted[n]);
    if (total == 0) {
      if (!effective_order) return 0;  // a precision of zero
      break;
    }
    if (effective_order) order = static_cast<int>(n) + 1;
    if (counts.matches[n] == 0) smoothing *= 2;
    sum += std::log(counts.matches[n] == 0 ? 100 / (smoothing * total)
                                           : 100 * static_cast<double>(counts.matches[n]) / total);
  }
  return brevity * std::exp(sum / order);
}

}  // namespace

BleuCounts& BleuCounts::operator+=(const BleuCounts& other) {
  for (std::size_t n = 0; n < kBleuOrder; ++n) {
    matches[n] += other.matches[n];
    predicted[n] += other.predicted[n];
  }
  prediction_length += other.prediction_length;
  reference_length += other.reference_length;
  return *this;
}

std::vector<std::string> bleu_words(std::string_view text) {
  std::string line(without_trailing_space(text));
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "\n", " ");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");
  line = space_symbols(" " + line + " ");
  line = rewrite_pairs(line, "1 2 ", [](char a, char b) { return !is_digit(a) && is_stop(b); });
  line = rewrite_pairs(line, " 1 2", [](char a, char b) { return is_stop(a) && !is_digit(b); });
  line = rewrite_pairs(line, "1 2 ", [](char a, char b) { return is_digit(a) && b == '-'; });
  return split_words(line);
}

BleuCounts bleu_counts(std::string_view prediction, const std::vector<std::string>& references) {
  SKEIN_CHECK(!references.empty());
  const std::vector<std::string> words = bleu_words(prediction);
  BleuCounts counts;
  counts.prediction_length = static_cast<std::int64_t>(words.size());
  std::vector<std::vector<std::string>> wanted;
  std::int64_t nearest = -1;
  for (const std::string& reference : references) {
    wanted.push_back(bleu_words(reference));
    const std::int64_t length = static_cast<std::int64_t>(wanted.back().size());
    const std::int64_t difference = std::abs(length - counts.prediction_length);
    if (nearest < 0 || difference < nearest || (difference == nearest && length < counts.reference_length)) {
      nearest = difference;
      counts.reference_length = length;
    }
  }
  for (std::size_t n = 0; n < kBleuOrder; ++n) {
    Counts most;  // of any reference
    for (const auto& reference : wanted) {
      for (const auto& [ngram, count] : ngrams(reference, n + 1)) most[ngram] = std::max(most[ngram], count);
    }
    for (const auto& [ngram, count] : ngrams(words, n + 1)) {
      counts.predicted[n] += count;
      const auto it = most.find(ngram);
      if (it != most.end()) counts.matches[n] += std::min(count, it->second);
    }
  }
  return counts;
}

double corpus_bleu(const BleuCounts& counts) { return bleu(counts, false); }
double sentence_bleu(const BleuCounts& counts) { return bleu(counts, true); }

}  // namespace skein
