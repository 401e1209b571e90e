#include "skein/text/bpe_model.h"

#include "skein/base/concat.h"
#include "skein/text/byte_alphabet.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

std::uint64_t pair_key(TokenId left, TokenId right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

void add_symbol(TokenId id, std::size_t begin, std::size_t length, std::vector<MergeSymbol>& symbols) {
  const auto at = static_cast<std::int32_t>(symbols.size());
  if (at > 0) symbols.back().next = at;
  symbols.push_back({id, at - 1, -1, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(length)});
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary, const BpeOptions& options, std::size_t num_merges)
    : vocabulary_(vocabulary), options_(options), merges_(num_merges) {
  if (options.byte_fallback) fallback_.emplace(vocabulary);
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocabulary.find(byte_spelling(static_cast<unsigned char>(byte))).value_or(-1);
  }
}

Result<std::shared_ptr<const BpeModel>> BpeModel::make(const Vocabulary& vocabulary,
                                                       const std::vector<std::pair<std::string, std::string>>& merges,
                                                       const BpeOptions& options, const std::string& where) {
  std::shared_ptr<BpeModel> model(new BpeModel(vocabulary, options, merges.size()));
  std::string merged;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    merged.assign(left).append(right);
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right), id = vocabulary.find(merged);
    if (!left_id || !right_id || !id) {
      const std::string& missing = !left_id ? left : !right_id ? right : merged;
      return Error{concat(where, ": merge ", rank, " (\"", printable(left), "\" \"", printable(right),
                          "\") needs the token \"", printable(missing), "\", which the vocabulary lacks")};
    }
    model->merges_.insert(pair_key(*left_id, *right_id), {static_cast<std::uint32_t>(rank), *id});
  }
  return std::shared_ptr<const BpeModel>(std::move(model));
}

void BpeModel::add_bytes(std::string_view word, std::vector<MergeSymbol>& symbols) const {
  for (std::size_t i = 0; i < word.size(); ++i) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id >= 0) {
      add_symbol(id, i, 1, symbols);
    } else {
      add_unknown(i, 1, symbols);
    }
  }
}

void BpeModel::add_characters(std::string_view word, std::vector<MergeSymbol>& symbols) const {
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t length = std::max(1, utf8_length(word.substr(i)));  // 1: a byte that is not UTF-8
    const auto id = vocabulary_.find(word.substr(i, length));
    if (id) {
      add_symbol(*id, i, length, symbols);
    } else if (fallback_ && fallback_->complete()) {
      for (std::size_t k = i; k < i + length; ++k) add_symbol(fallback_->id(word[k]), k, 1, symbols);
    } else {
      add_unknown(i, length, symbols);
    }
    i += length;
  }
}

void BpeModel::add_unknown(std::size_t begin, std::size_t length, std::vector<MergeSymbol>& symbols) const {
  if (!options_.unk) return;
  const bool fuse = options_.fuse_unk && !symbols.empty() && symbols.back().id == *options_.unk;
  if (fuse) {
    symbols.back().length += static_cast<std::uint32_t>(length);
  } else {
    add_symbol(*options_.unk, begin, length, symbols);
  }
}

void BpeModel::encode(std::string_view word, std::vector<TokenId>& ids) const {
  if (options_.ignore_merges) {
    const auto id = options_.byte_level ? vocabulary_.find(spell_bytes(word)) : vocabulary_.find(word);
    if (id) {
      ids.push_back(*id);
      return;
    }
  }
  thread_local std::vector<MergeSymbol> symbols;
  symbols.clear();
  if (options_.byte_level) {
    add_bytes(word, symbols);
  } else {
    add_characters(word, symbols);
  }
  merge_symbols(symbols, [&](const MergeSymbol& left, const MergeSymbol& right) {
    return merges_.find(pair_key(left.id, right.id));
  });
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.length > 0) ids.push_back(symbol.id);
  }
}

}  // namespace skein
