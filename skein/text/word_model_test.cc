// The three models against slow, obvious twins on random vocabularies.
#include "skein/text/word_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "skein/base/concat.h"
#include "skein/text/bpe_model.h"
#include "skein/text/score_bpe_model.h"
#include "skein/text/unigram_model.h"

namespace skein {
namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

std::string random_word(std::mt19937& random, std::size_t longest) {
  std::string word;
  for (std::size_t length = 1 + random() % longest; word.size() < length;) word += "abc"[random() % 3];
  return word;
}

// Letters, then merges of tokens that are there already.
struct RandomBpe {
  std::vector<std::string> tokens = {"a", "b", "c"};
  Merges merges;

  explicit RandomBpe(std::mt19937& random) {
    while (merges.size() < 30) {
      const std::string left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      const std::pair<std::string, std::string> merge(left, right);
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) tokens.push_back(left + right);
    }
  }
};

// Merges the pair of lowest rank, leftmost first, one at a time.
template <typename Rank>
std::vector<std::string> slow_merge(std::vector<std::string> parts, const Rank& rank_of) {
  for (;;) {
    std::size_t best = parts.size();
    double best_rank = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const std::optional<double> rank = rank_of(parts[i], parts[i + 1]);
      if (rank && (best == parts.size() || *rank < best_rank)) {
        best = i;
        best_rank = *rank;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

std::vector<std::string> letters(const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  return parts;
}

std::vector<std::string> tokens_of(const WordModel& model, const Vocabulary& vocabulary, const std::string& word) {
  std::vector<TokenId> ids;
  model.encode(word, ids);
  std::vector<std::string> tokens;
  for (const TokenId id : ids) tokens.push_back(vocabulary[id]);
  return tokens;
}

TEST(BpeModel, MergesAsTheDefinitionSays) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const RandomBpe bpe(random);
    const Vocabulary vocabulary(bpe.tokens);
    const auto model = or_throw(BpeModel::make(vocabulary, bpe.merges, {}, "test"));
    for (int i = 0; i < 50; ++i) {
      const std::string word = random_word(random, 40);
      const auto expected =
          slow_merge(letters(word), [&](const std::string& a, const std::string& b) -> std::optional<double> {
            const auto found = std::find(bpe.merges.begin(), bpe.merges.end(), std::pair(a, b));
            if (found == bpe.merges.end()) return std::nullopt;
            return static_cast<double>(found - bpe.merges.begin());
          });
      ASSERT_EQ(tokens_of(*model, vocabulary, word), expected) << word;
    }
  }
}

TEST(BpeModel, RefusesMergesWhoseTokensAreMissing) {
  const Vocabulary vocabulary({"a", "b", "ab"});
  const auto model = BpeModel::make(vocabulary, {{"a", "b"}, {"ab", "c"}}, {}, "file");
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find("file: merge 1 (\"ab\" \"c\") needs the token \"c\""), std::string::npos);
}

TEST(BpeModel, SpellsUnknownCharactersAsItsOptionsSay) {
  std::vector<std::string> tokens = {"a", "?"};
  const auto ids = [&](const BpeOptions& options) {
    const Vocabulary vocabulary(tokens);
    std::vector<TokenId> out;
    or_throw(BpeModel::make(vocabulary, {}, options, "test"))->encode("xéaz", out);
    return out;
  };
  EXPECT_EQ(ids({}), (std::vector<TokenId>{0}));
  EXPECT_EQ(ids({.unk = 1}), (std::vector<TokenId>{1, 1, 0, 1}));
  EXPECT_EQ(ids({.fuse_unk = true, .unk = 1}), (std::vector<TokenId>{1, 0, 1}));
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    tokens.push_back(concat("<0x", std::string{kHex[byte / 16], kHex[byte % 16]}, ">"));
  }
  EXPECT_EQ(ids({.byte_fallback = true, .unk = 1}), (std::vector<TokenId>{2 + 'x', 2 + 0xC3, 2 + 0xA9, 0, 2 + 'z'}));
}

TEST(ScoreBpeModel, MergesByScoreLeftmostFirst) {
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> tokens = {"<unk>", "a", "b", "c"};
    while (tokens.size() < 40) {
      const std::string token = random_word(random, 6);
      if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
    }
    std::vector<float> scores;
    std::map<std::string, double> rank;  // few different scores, so that ties happen
    for (const std::string& token : tokens) {
      scores.push_back(static_cast<float>(random() % 8) - 4);
      rank[token] = -scores.back();
    }
    rank.erase("<unk>");
    const Vocabulary vocabulary(tokens);
    std::vector<bool> mergeable(tokens.size(), true);
    mergeable[0] = false;
    const ScoreBpeModel model(vocabulary, scores, mergeable, 0);
    for (int i = 0; i < 50; ++i) {
      const std::string word = random_word(random, 40);
      const auto expected =
          slow_merge(letters(word), [&](const std::string& a, const std::string& b) -> std::optional<double> {
            const auto found = rank.find(a + b);
            return found == rank.end() ? std::nullopt : std::optional<double>(found->second);
          });
      ASSERT_EQ(tokens_of(model, vocabulary, word), expected) << word;
    }
  }
}

// All ways to cut the word, by recursion.
double best_score(const std::string& word, const std::map<std::string, double>& scores) {
  if (word.empty()) return 0;
  double best = -1e9;
  for (std::size_t length = 1; length <= word.size(); ++length) {
    const auto found = scores.find(word.substr(0, length));
    if (found != scores.end()) best = std::max(best, found->second + best_score(word.substr(length), scores));
  }
  return best;
}

TEST(UnigramModel, FindsTheBestOfAllWaysToCut) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    std::map<std::string, double> scores = {{"a", -5.5}, {"b", -6.25}, {"c", -7.125}};
    while (scores.size() < 25) scores.emplace(random_word(random, 5), -1.0 - (random() % 1000) / 128.0);
    std::vector<std::string> tokens = {"<unk>"};
    std::vector<double> list = {0};
    for (const auto& [token, score] : scores) {
      tokens.push_back(token);
      list.push_back(score);
    }
    const Vocabulary vocabulary(tokens);
    const UnigramModel model(vocabulary, list, 0, false);
    for (int i = 0; i < 30; ++i) {
      const std::string word = random_word(random, 12);
      double sum = 0;  // multiples of 1/128 below 2^10: sums are exact
      std::string joined;
      for (const std::string& token : tokens_of(model, vocabulary, word)) {
        sum += scores.at(token);
        joined += token;
      }
      ASSERT_EQ(joined, word);
      ASSERT_EQ(sum, best_score(word, scores)) << word;
    }
  }
}

TEST(UnigramModel, JoinsNeighbouringUnknownCharacters) {
  const Vocabulary vocabulary({"<unk>", "a"});
  const UnigramModel model(vocabulary, {0, -1}, 0, false);
  EXPECT_EQ(tokens_of(model, vocabulary, "xyaéa"), (std::vector<std::string>{"<unk>", "a", "<unk>", "a"}));
}

}  // namespace
}  // namespace skein
