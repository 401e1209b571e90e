#include <memory>

#include "skein/base/concat.h"
#include "skein/text/bpe_model.h"
#include "skein/text/gguf_vocabulary.h"
#include "skein/text/pipeline_tokenizer.h"
#include "skein/text/score_bpe_model.h"
#include "skein/text/space_cut.h"

namespace skein {
namespace {

Status add_byte_level_model(GgufVocabulary& from, const std::string& where, TokenizerParts& parts) {
  if (from.rule->nfc) parts.normalizer = Normalizer::nfc();
  SKEIN_ASSIGN(parts.pre_tokenizer, PreTokenizer::isolating(from.rule->patterns, where));
  // No unknown token: like its peers, Skein leaves out the few bytes a vocabulary lacks (none that UTF-8 text needs).
  const BpeOptions options{.byte_level = true, .ignore_merges = from.rule->ignore_merges};
  SKEIN_ASSIGN(parts.model, BpeModel::make(*parts.vocabulary, from.merges, options, where));
  parts.spelling = TokenSpelling::kByteLevel;
  return {};
}

// Spaces are spelled "▁", and a text (and what follows an added token) may get one put before it.
Status add_score_model(GgufVocabulary& from, const std::string& where, TokenizerParts& parts) {
  const Json spaces = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const Json prefix = {{"type", "Prepend"}, {"prepend", "▁"}};
  Json steps = Json::array();
  if (from.add_space_prefix) steps.push_back(prefix);
  steps.push_back(spaces);
  SKEIN_ASSIGN(parts.normalizer, Normalizer::parse({{"type", "Sequence"}, {"normalizers", steps}}, where));

  parts.pre_tokenizer.add(make_space_cut(*parts.vocabulary));

  std::vector<bool> mergeable;
  mergeable.reserve(from.types.size());
  for (const GgufTokenType type : from.types) {
    mergeable.push_back(type == GgufTokenType::kNormal || type == GgufTokenType::kUserDefined ||
                        type == GgufTokenType::kUnused);
  }
  parts.model = std::make_shared<ScoreBpeModel>(*parts.vocabulary, from.scores, std::move(mergeable),
                                                from.special.unk.value_or(0));
  parts.spelling = TokenSpelling::kMetaspace;
  parts.strips_leading_space = from.add_space_prefix;
  return {};
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> tokenizer_from_gguf(const GgufFile& file) {
  SKEIN_ASSIGN(GgufVocabulary from, read_gguf_vocabulary(file));
  TokenizerParts parts;
  parts.added = from.added_tokens();
  parts.vocabulary = std::make_unique<Vocabulary>(std::move(from.tokens));
  SKEIN_TRY(from.score_bpe ? add_score_model(from, file.path(), parts)
                           : add_byte_level_model(from, file.path(), parts));
  if (from.special.add_bos) parts.prefix.push_back(*from.special.bos);
  if (from.special.add_eos) parts.suffix.push_back(*from.special.eos);
  parts.special = std::move(from.special);
  parts.chat_template = std::move(from.chat_template);
  return std::unique_ptr<Tokenizer>(std::make_unique<PipelineTokenizer>(std::move(parts)));
}

}  // namespace skein
