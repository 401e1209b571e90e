#include "skein/text/unigram_model.h"

#include <algorithm>

#include "skein/text/utf8.h"

namespace skein {
namespace {

// An unknown character costs this much more than the rarest token (sentencepiece, src/unigram_model.cc, kUnkPenalty).
constexpr double kUnkPenalty = 10.0;

// The best way to a byte of the word: its score, and where and with which id its last token began.
struct BestEnd {
  double score = 0;
  std::size_t begin = 0;
  TokenId id = -1;
  bool reached = false;
};

}  // namespace

UnigramModel::UnigramModel(const Vocabulary& vocabulary, std::vector<double> scores, TokenId unk, bool byte_fallback)
    : scores_(std::move(scores)),
      unk_(unk),
      fallback_(vocabulary),
      byte_fallback_(byte_fallback && fallback_.complete()) {
  double lowest = 0;
  for (TokenId id = 0; id < static_cast<TokenId>(scores_.size()); ++id) {
    lowest = id == 0 ? scores_[id] : std::min(lowest, scores_[id]);
    trie_.insert(vocabulary[id], id);
  }
  unk_score_ = lowest - kUnkPenalty;
}

void UnigramModel::encode(std::string_view word, std::vector<TokenId>& ids) const {
  std::vector<BestEnd> best(word.size() + 1);
  best[0].reached = true;
  const auto offer = [&](std::size_t begin, std::size_t end, TokenId id, double score) {
    BestEnd& there = best[end];
    const double total = best[begin].score + score;
    if (!there.reached || total > there.score) there = BestEnd{total, begin, id, true};
  };
  std::size_t length = 0;
  for (std::size_t at = 0; at < word.size(); at += length) {
    length = std::max(1, utf8_length(word.substr(at)));  // 1: a byte that is not UTF-8
    if (!best[at].reached) continue;
    bool has_character = false;
    trie_.each_prefix(word.substr(at), [&](ByteTrie::Match match) {
      offer(at, at + match.length, match.number, scores_[match.number]);
      has_character = has_character || match.length == length;
    });
    if (!has_character) offer(at, at + length, unk_, unk_score_);
  }

  const std::size_t first = ids.size();
  for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
    const BestEnd& last = best[end];
    if (last.id != unk_) {
      ids.push_back(last.id);
    } else if (byte_fallback_) {
      for (std::size_t i = end; i > last.begin; --i) ids.push_back(fallback_.id(word[i - 1]));
    } else if (ids.size() == first || ids.back() != unk_) {
      ids.push_back(unk_);  // neighbours that are both unknown are one unknown token
    }
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

}  // namespace skein
