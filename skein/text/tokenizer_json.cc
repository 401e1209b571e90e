// tokenizer.json, as the `tokenizers` library writes it. What Skein does not have is refused by name: a tokenizer that
// is read approximately gives other ids, and nothing downstream would notice.
#include <algorithm>
#include <memory>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/bpe_model.h"
#include "skein/text/pipeline_tokenizer.h"
#include "skein/text/space_cut.h"
#include "skein/text/special_tokens.h"
#include "skein/text/tokenizer_config.h"
#include "skein/text/tokenizer_json.h"
#include "skein/text/unigram_model.h"

namespace skein {
namespace {

const Json& member(const Json& json, const std::string& key) {
  static const Json kNull;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found == json.end() ? kNull : *found;
}

// Puts `token` at `id`, growing the list; ids are checked against the bound of vocabulary.h.
Status place_token(std::int64_t id, const std::string& token, std::vector<std::string>& tokens,
                   const std::string& where) {
  if (id < 0 || id >= kMaxVocabulary) {
    return Error{concat(where, ": the token \"", printable(token), "\" has the id ", id, "; 0 to ", kMaxVocabulary - 1,
                        " are allowed")};
  }
  if (id >= static_cast<std::int64_t>(tokens.size())) tokens.resize(id + 1);
  if (!tokens[id].empty() && tokens[id] != token) {
    return Error{concat(where, ": the id ", id, " belongs to both \"", printable(tokens[id]), "\" and \"",
                        printable(token), "\"")};
  }
  tokens[id] = token;
  return {};
}

}  // namespace

Result<std::vector<std::string>> bpe_tokens(const Json& model, const std::string& where) {
  const Json& vocab = member(model, "vocab");
  if (!vocab.is_object()) return Error{concat(where, ": model.vocab is not an object of tokens and ids")};
  std::vector<std::string> tokens;
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer())
      return Error{concat(where, ": the id of \"", printable(token), "\" is not an integer")};
    SKEIN_TRY(place_token(id.get<std::int64_t>(), token, tokens, where));
  }
  return tokens;
}

// "a b", or since 0.20 ["a", "b"].
Result<BpeMerges> bpe_merges(const Json& model, const std::string& where) {
  const Json& list = member(model, "merges");
  if (!list.is_array()) return Error{concat(where, ": model.merges is not a list")};
  BpeMerges merges;
  merges.reserve(list.size());
  for (const Json& merge : list) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    return Error{
        concat(where, ": merge ", merges.size(), " is ", printable(merge.dump()), "; two tokens were expected")};
  }
  return merges;
}

Status read_added_tokens(const Json& json, const std::string& where, std::vector<std::string>& tokens,
                         std::vector<AddedToken>& added) {
  for (const Json& entry : member(json, "added_tokens")) {
    SKEIN_ASSIGN(const std::int64_t id, json_integer(entry, "id", std::nullopt, where));
    SKEIN_ASSIGN(AddedToken token, parse_added_token(entry, id, where));
    SKEIN_TRY(place_token(id, token.content, tokens, where));
    added.push_back(std::move(token));
  }
  return {};
}

namespace {

Status add_bpe(const Json& model, const std::string& where, TokenizerParts& parts) {
  SKEIN_ASSIGN(const std::string prefix, json_string(model, "continuing_subword_prefix", "", where));
  SKEIN_ASSIGN(const std::string suffix, json_string(model, "end_of_word_suffix", "", where));
  SKEIN_ASSIGN(const double dropout, json_number(model, "dropout", 0.0, where));
  if (!prefix.empty() || !suffix.empty() || dropout != 0) {
    return Error{concat(where, ": a BPE model with ", dropout != 0 ? "dropout" : "a subword prefix or suffix",
                        " is not one Skein has")};
  }
  BpeOptions options{.byte_level = parts.pre_tokenizer.byte_level()};
  SKEIN_ASSIGN(options.byte_fallback, json_bool(model, "byte_fallback", false, where));
  SKEIN_ASSIGN(options.ignore_merges, json_bool(model, "ignore_merges", false, where));
  SKEIN_ASSIGN(options.fuse_unk, json_bool(model, "fuse_unk", false, where));
  SKEIN_ASSIGN(const std::string unk, json_string(model, "unk_token", "", where));
  if (!unk.empty()) {
    options.unk = parts.vocabulary->find(unk);
    if (!options.unk) return Error{concat(where, ": the vocabulary lacks its unknown token \"", printable(unk), "\"")};
    parts.special.unk = options.unk;
  }
  if (!options.byte_level && !options.ignore_merges) parts.pre_tokenizer.add(make_space_cut(*parts.vocabulary));
  SKEIN_ASSIGN(const BpeMerges merges, bpe_merges(model, where));
  SKEIN_ASSIGN(parts.model, BpeModel::make(*parts.vocabulary, merges, options, where));
  return {};
}

struct UnigramVocabulary {
  std::vector<std::string> tokens;
  std::vector<double> scores;
};

Result<UnigramVocabulary> unigram_vocabulary(const Json& model, const std::string& where) {
  const Json& vocab = member(model, "vocab");
  if (!vocab.is_array() || vocab.empty())
    return Error{concat(where, ": model.vocab is not a list of tokens with scores")};
  UnigramVocabulary found;
  for (const Json& entry : vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return Error{concat(where, ": token ", found.tokens.size(), " is ", printable(entry.dump()),
                          "; a token with its score was expected")};
    }
    SKEIN_TRY(
        place_token(static_cast<std::int64_t>(found.tokens.size()), entry[0].get<std::string>(), found.tokens, where));
    found.scores.push_back(entry[1].get<double>());
  }
  return found;
}

Status add_unigram(const Json& model, std::vector<double> scores, const std::string& where, TokenizerParts& parts) {
  SKEIN_ASSIGN(const std::int64_t unk, json_integer(model, "unk_id", -1, where));
  if (unk < 0 || unk >= static_cast<std::int64_t>(scores.size())) {
    return Error{concat(where, ": the unigram model's unk_id is ", unk, "; an id of its vocabulary was expected")};
  }
  SKEIN_ASSIGN(const bool byte_fallback, json_bool(model, "byte_fallback", false, where));
  parts.special.unk = static_cast<TokenId>(unk);
  parts.model =
      std::make_shared<UnigramModel>(*parts.vocabulary, std::move(scores), static_cast<TokenId>(unk), byte_fallback);
  return {};
}

// Whether decoding drops the space that encoding put before the text, by the "decoder".
struct DecoderFacts {
  bool byte_level = false;
  bool strips = false;
};
Result<DecoderFacts> read_decoder(const Json& decoder, const std::string& where) {
  DecoderFacts facts;
  if (decoder.is_null()) return facts;
  SKEIN_ASSIGN(const std::string type, json_string(decoder, "type", std::nullopt, where));
  if (type == "ByteLevel") {
    facts.byte_level = true;
  } else if (type == "Metaspace") {
    SKEIN_ASSIGN(const bool add_prefix_space, json_bool(decoder, "add_prefix_space", true, where));
    SKEIN_ASSIGN(const std::string scheme,
                 json_string(decoder, "prepend_scheme", add_prefix_space ? "always" : "never", where));
    facts.strips = scheme != "never";
  } else if (type == "Strip") {
    SKEIN_ASSIGN(const std::int64_t start, json_integer(decoder, "start", 0, where));
    SKEIN_ASSIGN(const std::int64_t stop, json_integer(decoder, "stop", 0, where));
    SKEIN_ASSIGN(const std::string content, json_string(decoder, "content", " ", where));
    if (start > 1 || stop != 0 || content != " ")
      return Error{concat(where, ": the decoder Strip takes more than one leading space")};
    facts.strips = start == 1;
  } else if (type == "Replace") {
    const Json pattern = member(decoder, "pattern");
    if (member(pattern, "String") != "▁" || member(decoder, "content") != " ") {
      return Error{concat(where, ": the decoder Replace is not \"▁\" to a space")};
    }
  } else if (type == "Sequence") {
    for (const Json& inner : member(decoder, "decoders")) {
      SKEIN_ASSIGN(const DecoderFacts step, read_decoder(inner, where));
      facts.byte_level = facts.byte_level || step.byte_level;
      facts.strips = facts.strips || step.strips;
    }
  } else if (type != "ByteFallback" && type != "Fuse") {
    return Error{
        concat(where, ": the decoder \"", printable(type),
               "\" is not one Skein has (ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence)")};
  }
  return facts;
}

// The ids before and after the text, from a TemplateProcessing's "single".
Status read_template(const Json& processor, const std::string& where, TokenizerParts& parts) {
  int texts = 0;
  for (const Json& item : member(processor, "single")) {
    if (item.contains("Sequence")) {
      ++texts;
      continue;
    }
    SKEIN_ASSIGN(const std::string name, json_string(member(item, "SpecialToken"), "id", std::nullopt, where));
    const Json& entry = member(member(processor, "special_tokens"), name);
    for (const Json& id : member(entry, "ids")) {
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= parts.vocabulary->size()) {
        return Error{concat(where, ": the post-processor's token \"", printable(name), "\" is not in the vocabulary")};
      }
      (texts == 0 ? parts.prefix : parts.suffix).push_back(id.get<TokenId>());
    }
  }
  if (texts != 1)
    return Error{concat(where, ": the post-processor uses the text ", texts, " times; once was expected")};
  return {};
}

Status read_post_processor(const Json& processor, const std::string& where, TokenizerParts& parts) {
  if (processor.is_null()) return {};
  SKEIN_ASSIGN(const std::string type, json_string(processor, "type", std::nullopt, where));
  if (type == "TemplateProcessing") return read_template(processor, where, parts);
  if (type == "Sequence") {
    for (const Json& inner : member(processor, "processors")) SKEIN_TRY(read_post_processor(inner, where, parts));
    return {};
  }
  if (type == "ByteLevel") return {};  // moves offsets only
  return Error{concat(where, ": the post-processor \"", printable(type),
                      "\" is not one Skein has (TemplateProcessing, ByteLevel, Sequence)")};
}

// The config names the special tokens; an explicit add_bos_token or add_eos_token replaces the post-processor (as
// transformers does since 5.0).
Status apply_config(const TokenizerConfig& config, const std::string& where, TokenizerParts& parts) {
  const auto find = [&](const std::optional<std::string>& name, std::optional<TokenId>& id) -> Status {
    if (!name || name->empty()) return {};
    id = parts.vocabulary->find(*name);
    if (id) return {};
    return Error{concat(where, ": the config's special token \"", printable(*name), "\" is not in the vocabulary")};
  };
  SKEIN_TRY(find(config.bos, parts.special.bos));
  SKEIN_TRY(find(config.eos, parts.special.eos));
  SKEIN_TRY(find(config.pad, parts.special.pad));
  SKEIN_TRY(find(config.unk, parts.special.unk));
  if (config.add_bos || config.add_eos) {
    parts.prefix.clear();
    parts.suffix.clear();
    if (config.add_bos.value_or(false) && parts.special.bos) parts.prefix.push_back(*parts.special.bos);
    if (config.add_eos.value_or(false) && parts.special.eos) parts.suffix.push_back(*parts.special.eos);
  }
  parts.special.add_bos = !parts.prefix.empty() && parts.special.bos == parts.prefix.front();
  parts.special.add_eos = !parts.suffix.empty() && parts.special.eos == parts.suffix.back();
  parts.chat_template = config.chat_template;
  find_end_of_generation(parts.added, parts.special);
  return {};
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> tokenizer_from_json(const std::string& tokenizer_json,
                                                       const std::string& tokenizer_config_json,
                                                       const std::string& name) {
  SKEIN_ASSIGN(const TokenizerConfig config, parse_tokenizer_config(tokenizer_config_json, concat(name, " (config)")));
  SKEIN_ASSIGN(const Json json, parse_json(tokenizer_json, name));
  const Json& model = member(json, "model");
  const Json& vocab = member(model, "vocab");
  SKEIN_ASSIGN(const std::string type, json_string(model, "type", vocab.is_array() ? "Unigram" : "BPE", name));
  if (type != "BPE" && type != "Unigram") {
    return Error{concat(name, ": the model \"", printable(type), "\" is not one Skein has (BPE, Unigram)")};
  }

  TokenizerParts parts;
  SKEIN_ASSIGN(parts.normalizer, Normalizer::parse(member(json, "normalizer"), name));
  SKEIN_ASSIGN(parts.pre_tokenizer, PreTokenizer::parse(member(json, "pre_tokenizer"), name));
  std::vector<std::string> tokens;
  std::vector<double> scores;
  if (type == "BPE") {
    SKEIN_ASSIGN(tokens, bpe_tokens(model, name));
  } else {
    SKEIN_ASSIGN(UnigramVocabulary unigram, unigram_vocabulary(model, name));
    tokens = std::move(unigram.tokens);
    scores = std::move(unigram.scores);
  }
  SKEIN_TRY(read_added_tokens(json, name, tokens, parts.added));
  parts.vocabulary = std::make_unique<Vocabulary>(std::move(tokens));
  SKEIN_TRY(type == "BPE" ? add_bpe(model, name, parts) : add_unigram(model, std::move(scores), name, parts));

  SKEIN_ASSIGN(const DecoderFacts decoder, read_decoder(member(json, "decoder"), name));
  const bool byte_level = parts.pre_tokenizer.byte_level();
  if (!member(json, "decoder").is_null() && decoder.byte_level != byte_level) {
    return Error{concat(name, ": of pre-tokenizer and decoder only one is ByteLevel; text would not come back")};
  }
  parts.spelling = byte_level ? TokenSpelling::kByteLevel : TokenSpelling::kMetaspace;
  parts.strips_leading_space = decoder.strips;
  SKEIN_TRY(read_post_processor(member(json, "post_processor"), name, parts));
  SKEIN_TRY(apply_config(config, name, parts));
  return std::unique_ptr<Tokenizer>(std::make_unique<PipelineTokenizer>(std::move(parts)));
}

}  // namespace skein
