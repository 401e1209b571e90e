#include "skein/text/score_bpe_model.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "skein/text/merge_queue.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

// Floats in falling order as rising integers: the bits of a positive float rise with it, those of a negative one fall.
std::uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 + 0 is +0: the two zeros are one score
  const std::uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return ~rising;
}

}  // namespace

ScoreBpeModel::ScoreBpeModel(const Vocabulary& vocabulary, const std::vector<float>& scores,
                             std::vector<bool> mergeable, TokenId unk)
    : vocabulary_(vocabulary), mergeable_(std::move(mergeable)), fallback_(vocabulary), unk_(unk) {
  ranks_.reserve(scores.size());
  for (const float score : scores) ranks_.push_back(rank_of(score));
}

TokenId ScoreBpeModel::find(std::string_view token) const {
  const auto id = vocabulary_.find(token);
  return id && mergeable_[*id] ? *id : -1;
}

void ScoreBpeModel::encode(std::string_view word, std::vector<TokenId>& ids) const {
  thread_local std::vector<MergeSymbol> symbols;
  symbols.clear();
  for (std::size_t i = 0; i < word.size();) {
    const int length = std::max(1, utf8_length(word.substr(i)));  // 1: a byte that is not UTF-8
    const auto at = static_cast<std::int32_t>(symbols.size());
    if (at > 0) symbols.back().next = at;
    symbols.push_back({-1, at - 1, -1, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(length)});
    i += length;
  }
  // Characters need not be tokens to merge, so the look-up goes by text.
  merge_symbols(symbols, [&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<MergeCandidate> {
    const TokenId id = find(word.substr(left.begin, left.length + right.length));
    if (id < 0) return std::nullopt;
    return MergeCandidate{ranks_[id], id};
  });
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.length == 0) continue;
    const std::string_view text = word.substr(symbol.begin, symbol.length);
    const TokenId id = symbol.id >= 0 ? symbol.id : find(text);
    if (id >= 0) {
      ids.push_back(id);
    } else if (fallback_.complete()) {
      for (const char byte : text) ids.push_back(fallback_.id(byte));
    } else {
      ids.push_back(unk_);
    }
  }
}

}  // namespace skein
