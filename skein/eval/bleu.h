// BLEU as sacrebleu computes it (K. Papineni et al., ACL 2002; M. Post, WMT 2018): its 13a tokenizer, case kept,
// exponential smoothing, n-grams up to four. Scores are 0 to 100, as sacrebleu's.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skein {

inline constexpr int kBleuOrder = 4;

// What BLEU needs of a segment; those of a corpus are summed.
struct BleuCounts {
  std::array<std::int64_t, kBleuOrder> matches{}, predicted{};  // n-grams in common with a reference; of the prediction
  std::int64_t prediction_length = 0, reference_length = 0;     // words; the reference nearest in length
  BleuCounts& operator+=(const BleuCounts& other);
};

std::vector<std::string> bleu_words(std::string_view text);
// references: at least one.
BleuCounts bleu_counts(std::string_view prediction, const std::vector<std::string>& references);
// corpus_bleu of the summed counts.
double corpus_bleu(const BleuCounts& counts);
// sentence_bleu: only as many orders as the prediction has n-grams of.
double sentence_bleu(const BleuCounts& counts);

}  // namespace skein
