#include "skein/eval/porter_stemmer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace skein {
namespace {

bool is_plain_vowel(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

// Per letter: a consonant? A y is one at the start and after a vowel.
std::vector<bool> consonants(std::string_view word) {
  std::vector<bool> flags(word.size());
  for (std::size_t i = 0; i < word.size(); ++i)
    flags[i] = word[i] == 'y' ? i == 0 || !flags[i - 1] : !is_plain_vowel(word[i]);
  return flags;
}

bool ends_in_consonant(std::string_view word) { return consonants(word).back(); }

// The paper's m: how often a consonant follows a vowel.
int measure(std::string_view stem) {
  const std::vector<bool> flags = consonants(stem);
  int count = 0;
  for (std::size_t i = 1; i < flags.size(); ++i) count += !flags[i - 1] && flags[i];
  return count;
}

bool has_vowel(std::string_view stem) {
  const std::vector<bool> flags = consonants(stem);
  return std::find(flags.begin(), flags.end(), false) != flags.end();
}

bool ends_in_double_consonant(std::string_view word) {
  return word.size() >= 2 && word.back() == word[word.size() - 2] && ends_in_consonant(word);
}

// The paper's *o: consonant, vowel, consonant other than w, x, y at the end. NLTK: or vowel, consonant alone.
bool ends_in_short_syllable(std::string_view word) {
  const std::vector<bool> flags = consonants(word);
  const std::size_t n = word.size();
  if (n == 2) return !flags[0] && flags[1];
  return n >= 3 && flags[n - 3] && !flags[n - 2] && flags[n - 1] && word.back() != 'w' && word.back() != 'x' &&
         word.back() != 'y';
}

struct Rule {
  std::string_view suffix, replacement;
};

// The first rule whose suffix the word has decides: applied if the rest satisfies the condition, else nothing is done.
template <typename Condition>
std::string apply_first(const std::string& word, std::initializer_list<Rule> rules, const Condition& condition) {
  for (const Rule& rule : rules) {
    if (!word.ends_with(rule.suffix)) continue;
    const std::string stem = word.substr(0, word.size() - rule.suffix.size());
    return condition(stem, rule) ? stem + std::string(rule.replacement) : word;
  }
  return word;
}

std::string cut(const std::string& word, std::size_t count) { return word.substr(0, word.size() - count); }

std::string step_1a(const std::string& word) {
  if (word.size() == 4 && word.ends_with("ies")) return cut(word, 1);
  return apply_first(word, {{"sses", "ss"}, {"ies", "i"}, {"ss", "ss"}, {"s", ""}},
                     [](const std::string&, const Rule&) { return true; });
}

std::string step_1b(const std::string& word) {
  if (word.ends_with("ied")) return cut(word, word.size() == 4 ? 1 : 2);
  if (word.ends_with("eed")) return measure(cut(word, 3)) > 0 ? cut(word, 1) : word;
  std::string stem;
  if (word.ends_with("ed") && has_vowel(cut(word, 2))) {
    stem = cut(word, 2);
  } else if (word.ends_with("ing") && has_vowel(cut(word, 3))) {
    stem = cut(word, 3);
  } else {
    return word;
  }
  if (stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz")) return stem + "e";
  if (ends_in_double_consonant(stem)) {
    const char last = stem.back();
    return last == 'l' || last == 's' || last == 'z' ? stem : cut(stem, 1);
  }
  return measure(stem) == 1 && ends_in_short_syllable(stem) ? stem + "e" : stem;
}

std::string step_1c(const std::string& word) {
  const bool applies =
      word.size() > 2 && word.back() == 'y' && ends_in_consonant(std::string_view(word).substr(0, word.size() - 1));
  return applies ? cut(word, 1) + "i" : word;
}

std::string step_2(const std::string& word) {
  if (word.ends_with("alli") && measure(cut(word, 4)) > 0) return step_2(cut(word, 2));
  return apply_first(word,
                     {{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
                      {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
                      {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
                      {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
                      {"fulli", "ful"},   {"logi", "log"}},
                     [](const std::string& stem, const Rule& rule) {
                       return measure(rule.suffix == "logi" ? stem + "l" : stem) > 0;  // so that geology is a stem
                     });
}

std::string step_3(const std::string& word) {
  return apply_first(
      word,
      {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}},
      [](const std::string& stem, const Rule&) { return measure(stem) > 0; });
}

std::string step_4(const std::string& word) {
  return apply_first(word,
                     {{"al", ""},
                      {"ance", ""},
                      {"ence", ""},
                      {"er", ""},
                      {"ic", ""},
                      {"able", ""},
                      {"ible", ""},
                      {"ant", ""},
                      {"ement", ""},
                      {"ment", ""},
                      {"ent", ""},
                      {"ion", ""},
                      {"ou", ""},
                      {"ism", ""},
                      {"ate", ""},
                      {"iti", ""},
                      {"ous", ""},
                      {"ive", ""},
                      {"ize", ""}},
                     [](const std::string& stem, const Rule& rule) {
                       if (measure(stem) <= 1) return false;
                       return rule.suffix != "ion" || stem.back() == 's' || stem.back() == 't';
                     });
}

std::string step_5(const std::string& word) {
  std::string stem = word;
  if (word.ends_with('e')) {
    const std::string rest = cut(word, 1);
    const int m = measure(rest);
    if (m > 1 || (m == 1 && !ends_in_short_syllable(rest))) stem = rest;
  }
  return stem.ends_with("ll") && measure(cut(stem, 1)) > 1 ? cut(stem, 1) : stem;
}

struct Irregular {
  std::string_view word, stem;
};
constexpr std::array<Irregular, 16> kIrregular = {{{"sky", "sky"},
                                                   {"skies", "sky"},
                                                   {"dying", "die"},
                                                   {"lying", "lie"},
                                                   {"tying", "tie"},
                                                   {"news", "news"},
                                                   {"innings", "inning"},
                                                   {"inning", "inning"},
                                                   {"outings", "outing"},
                                                   {"outing", "outing"},
                                                   {"cannings", "canning"},
                                                   {"canning", "canning"},
                                                   {"howe", "howe"},
                                                   {"proceed", "proceed"},
                                                   {"exceed", "exceed"},
                                                   {"succeed", "succeed"}}};

}  // namespace

std::string porter_stem(std::string word) {
  for (const Irregular& irregular : kIrregular) {
    if (word == irregular.word) return std::string(irregular.stem);
  }
  if (word.size() <= 2) return word;
  return step_5(step_4(step_3(step_2(step_1c(step_1b(step_1a(word)))))));
}

}  // namespace skein
