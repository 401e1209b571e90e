#include "skein/eval/squad.h"

#include <algorithm>
#include <map>
#include <vector>

#include "skein/eval/python_text.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

// re.sub(r"\b(a|an|the)\b", " "): words here are runs of letters and digits, whatever else stands beside them.
std::string without_articles(const std::string& text) {
  std::string out, word;
  const auto end_word = [&] {
    out += word == "a" || word == "an" || word == "the" ? " " : word;
    word.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = std::string_view(text).substr(at);
    const int length = utf8_length(rest);
    const std::size_t bytes = length == 0 ? 1 : static_cast<std::size_t>(length);
    if (length > 0 && is_alphanumeric(decode_utf8(rest))) {
      word += rest.substr(0, bytes);
    } else {
      end_word();
      out += rest.substr(0, bytes);
    }
    at += bytes;
  }
  end_word();
  return out;
}

}  // namespace

std::string normalized_answer(std::string_view text) {
  std::string lower = lower_text(text);
  std::erase_if(lower, is_ascii_punctuation);
  return join_words(split_words(without_articles(lower)));
}

bool squad_exact_match(std::string_view prediction, std::string_view reference) {
  return normalized_answer(prediction) == normalized_answer(reference);
}

double squad_f1(std::string_view prediction, std::string_view reference) {
  const std::vector<std::string> predicted = split_words(normalized_answer(prediction));
  const std::vector<std::string> wanted = split_words(normalized_answer(reference));
  if (predicted.empty() || wanted.empty()) return predicted.empty() && wanted.empty() ? 1 : 0;
  std::map<std::string, int> left;
  for (const std::string& word : wanted) ++left[word];
  int common = 0;
  for (const std::string& word : predicted) common += left[word]-- > 0 ? 1 : 0;
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(predicted.size());
  const double recall = common / static_cast<double>(wanted.size());
  return 2 * precision * recall / (precision + recall);
}

}  // namespace skein
