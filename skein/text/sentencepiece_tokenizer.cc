// SentencePiece .model files, through Google's library. Around it: added tokens, and the beginning and end tokens that
// the model families add.
#include <sentencepiece_processor.h>

#include <memory>

#include "skein/base/concat.h"
#include "skein/text/added_tokens.h"
#include "skein/text/flat_map.h"
#include "skein/text/special_tokens.h"
#include "skein/text/tokenizer_config.h"
#include "skein/text/vocabulary.h"
#include "skein/text/word_model.h"

namespace skein {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

constexpr std::int64_t kDefaultExtraIds = 100;  // T5's <extra_id_0> to <extra_id_99>, when no config says otherwise

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<Processor> processor, std::vector<AddedToken> added, SpecialTokens special,
                         std::optional<std::string> chat_template)
      : processor_(std::move(processor)), special_(std::move(special)), chat_template_(std::move(chat_template)) {
    size_ = processor_->GetPieceSize();
    for (AddedToken& token : added) {
      size_ = std::max<std::int64_t>(size_, token.id + 1);
      added_of_id_.insert(static_cast<std::uint64_t>(token.id), static_cast<std::int32_t>(added_.size()));
      splitter_.add(token);
      added_.push_back(std::move(token));
    }
    find_end_of_generation(added_, special_);
    std::vector<int> ids;
    strips_ = processor_->Encode("a", &ids).ok() && !ids.empty() && inner_piece(ids.front()).starts_with(' ');
  }

  using Tokenizer::encode;
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenId> ids;
    if (options.add_special && special_.add_bos) ids.push_back(*special_.bos);
    std::vector<int> part;
    for (const auto& segment : splitter_.split(text, options.parse_special)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      or_throw(check(processor_->Encode(segment.text, &part)));
      ids.insert(ids.end(), part.begin(), part.end());
    }
    if (options.add_special && special_.add_eos) ids.push_back(*special_.eos);
    return ids;
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (!skip_special || !is_special(id)) text += piece(id);
    }
    if (strips_ && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  std::string_view token(TokenId id) const override {
    if (const AddedToken* token = added(id)) return token->content;
    return in_model(id) ? std::string_view(processor_->IdToPiece(id)) : std::string_view();
  }

  std::string piece(TokenId id) const override {
    if (const AddedToken* token = added(id)) return token->content;
    return in_model(id) ? inner_piece(id) : std::string();
  }

  bool strips_leading_space() const override { return strips_; }
  bool is_special(TokenId id) const override {
    const AddedToken* token = added(id);
    return token != nullptr ? token->special : in_model(id) && processor_->IsControl(id);
  }
  std::int64_t vocabulary_size() const override { return size_; }
  const SpecialTokens& special() const override { return special_; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }

 private:
  static Status check(const sentencepiece::util::Status& status) {
    if (status.ok()) return {};
    return Error{concat("SentencePiece cannot encode a text: ", status.ToString())};
  }

  bool in_model(TokenId id) const { return id >= 0 && id < processor_->GetPieceSize(); }
  const AddedToken* added(TokenId id) const {
    if (id < 0) return nullptr;
    const std::int32_t* found = added_of_id_.find(static_cast<std::uint64_t>(id));
    return found == nullptr ? nullptr : &added_[*found];
  }

  std::string inner_piece(TokenId id) const {
    if (processor_->IsUnknown(id)) return " ⁇ ";  // what SentencePiece shows for it
    const std::string& token = processor_->IdToPiece(id);
    if (processor_->IsByte(id)) return std::string(1, static_cast<char>(ByteFallback::byte_of(token)));
    std::string text;
    constexpr std::string_view kSpace = "▁";
    for (std::size_t at = 0; at < token.size();) {
      const bool space = std::string_view(token).substr(at).starts_with(kSpace);
      text += space ? ' ' : token[at];
      at += space ? kSpace.size() : 1;
    }
    return text;
  }

  std::unique_ptr<Processor> processor_;
  std::vector<AddedToken> added_;
  AddedTokens splitter_;
  FlatMap<std::int32_t> added_of_id_;
  SpecialTokens special_;
  std::optional<std::string> chat_template_;
  std::int64_t size_ = 0;
  bool strips_ = false;
};

// T5's files name no beginning token and say nothing else of themselves: no config, or one of T5's classes.
bool is_t5(const Processor& processor, const TokenizerConfig& config) {
  if (config.extra_ids || config.tokenizer_class.starts_with("T5")) return true;
  return config.tokenizer_class.empty() && processor.bos_id() < 0 && processor.eos_id() >= 0 && processor.pad_id() >= 0;
}

// The control tokens and the unknown token, which may be spelled out in a text, then those of the config.
Result<std::vector<AddedToken>> find_added(const Processor& processor, const TokenizerConfig& config, bool t5,
                                           const std::string& name) {
  std::vector<AddedToken> added;
  std::vector<bool> taken(processor.GetPieceSize());
  for (const AddedToken& token : config.added) {
    if (token.id < processor.GetPieceSize()) {
      const std::string& piece = processor.IdToPiece(token.id);
      if (piece != token.content && !processor.IsControl(token.id) && !processor.IsUnused(token.id)) {
        return Error{concat(name, ": the config says that token ", token.id, " is \"", printable(token.content),
                            "\", the model that it is \"", printable(piece), "\"; they do not belong together")};
      }
      taken[token.id] = true;
    }
    added.push_back(token);
  }
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (!taken[id] && (processor.IsControl(id) || processor.IsUnknown(id))) {
      added.push_back({.id = id, .content = processor.IdToPiece(id), .special = true});
    }
  }
  if (t5 && config.added.empty()) {
    const std::int64_t count = config.extra_ids.value_or(kDefaultExtraIds);
    if (count < 0 || count > kMaxVocabulary) return Error{concat(name, ": the config's extra_ids is ", count)};
    for (std::int64_t i = 0; i < count; ++i) {
      const auto id = static_cast<TokenId>(processor.GetPieceSize() + count - 1 - i);
      added.push_back({.id = id, .content = concat("<extra_id_", i, ">"), .special = true});
    }
  }
  return added;
}

// The id of a special token: what the config names, else what the model has under that role.
std::optional<TokenId> special_id(const std::optional<std::string>& name, int of_model,
                                  const std::vector<AddedToken>& added, const Processor& processor) {
  if (!name || name->empty()) return of_model >= 0 ? std::optional<TokenId>(of_model) : std::nullopt;
  for (const AddedToken& token : added) {
    if (token.content == *name) return token.id;
  }
  const int id = processor.PieceToId(*name);
  return processor.IdToPiece(id) == *name ? std::optional<TokenId>(id) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> tokenizer_from_sentencepiece(std::span<const std::byte> model,
                                                                const std::string& tokenizer_config_json,
                                                                const std::string& name) {
  SKEIN_ASSIGN(TokenizerConfig config, parse_tokenizer_config(tokenizer_config_json, concat(name, " (config)")));
  auto processor = std::make_unique<Processor>();
  const std::string_view bytes(reinterpret_cast<const char*>(model.data()), model.size());
  const auto status = processor->LoadFromSerializedProto(bytes);
  if (!status.ok()) {
    return Error{concat(name, ": not a SentencePiece model: ", printable(status.ToString()))};
  }
  const bool t5 = is_t5(*processor, config);
  SKEIN_ASSIGN(std::vector<AddedToken> added, find_added(*processor, config, t5, name));
  SpecialTokens special;
  special.bos = special_id(config.bos, processor->bos_id(), added, *processor);
  special.eos = special_id(config.eos, processor->eos_id(), added, *processor);
  special.pad = special_id(config.pad, processor->pad_id(), added, *processor);
  special.unk = special_id(config.unk, processor->unk_id(), added, *processor);
  special.add_bos = config.add_bos.value_or(!t5) && special.bos.has_value();
  special.add_eos = config.add_eos.value_or(t5) && special.eos.has_value();
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(
      std::move(processor), std::move(added), std::move(special), std::move(config.chat_template)));
}

}  // namespace skein
