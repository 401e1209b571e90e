#include "skein/text/gguf_export.h"

#include <algorithm>
#include <unordered_map>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/pre_tokenizer.h"
#include "skein/text/tokenizer_json.h"

namespace skein {
namespace {

// The patterns that a "pre_tokenizer" cuts by, one after the other; nothing if it does anything else.
bool collect_cuts(const Json& json, std::vector<std::string>& patterns) {
  if (!json.is_object()) return false;
  const std::string type = json.value("type", "");
  if (type == "Sequence") {
    const Json steps = json.value("pretokenizers", Json::array());
    return std::all_of(steps.begin(), steps.end(), [&](const Json& step) { return collect_cuts(step, patterns); });
  }
  if (type == "Split") {
    const Json pattern = json.value("pattern", Json::object());
    if (!pattern.contains("Regex") || json.value("behavior", "") != "Isolated" || json.value("invert", false)) {
      return false;
    }
    patterns.push_back(pattern["Regex"].get<std::string>());
    return true;
  }
  if (type == "Digits") {
    patterns.emplace_back("\\p{N}");
    return json.value("individual_digits", false);
  }
  if (type == "ByteLevel") {
    if (json.value("use_regex", true)) patterns.emplace_back(kGpt2Pattern);
    return !json.value("add_prefix_space", true);
  }
  return false;
}

Status find_rule(const Json& json, const std::string& where, GgufVocabulary& vocabulary) {
  std::vector<std::string> patterns;
  const bool plain = collect_cuts(json.value("pre_tokenizer", Json()), patterns);
  const Json normalizer = json.value("normalizer", Json());
  const bool nfc = normalizer.is_object() && normalizer.value("type", "") == "NFC";
  if (plain && (nfc || normalizer.is_null())) {
    vocabulary.rule = find_pre_tokenizer_rule(patterns, nfc, json["model"].value("ignore_merges", false));
  }
  if (vocabulary.rule != nullptr) return {};
  return Error{concat(where, ": its normaliser and pre-tokenizer are none that GGUF has a name for (",
                      known_pre_tokenizer_names(), ")")};
}

// Byte fallback: a merge's rank, as the score of the token it makes; the token that merges first has the highest.
void score_by_merges(const BpeMerges& merges, GgufVocabulary& vocabulary) {
  std::unordered_map<std::string, std::size_t> rank_of;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    rank_of.try_emplace(merges[rank].first + merges[rank].second, rank);
  }
  for (const std::string& token : vocabulary.tokens) {
    const auto found = rank_of.find(token);
    vocabulary.scores.push_back(found == rank_of.end() ? 0.0F : -1 - static_cast<float>(found->second));
  }
}

bool prepends_space(const Json& normalizer) {
  if (!normalizer.is_object()) return false;
  if (normalizer.value("type", "") == "Prepend") return true;
  const Json steps = normalizer.value("normalizers", Json::array());
  return std::any_of(steps.begin(), steps.end(), prepends_space);
}

void set_types(const std::vector<AddedToken>& added, GgufVocabulary& vocabulary) {
  for (const std::string& token : vocabulary.tokens) {
    const bool byte = vocabulary.score_bpe && token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
    vocabulary.types.push_back(token.empty() ? GgufTokenType::kUnused
                               : byte        ? GgufTokenType::kByte
                                             : GgufTokenType::kNormal);
  }
  for (const AddedToken& token : added) {
    vocabulary.types[token.id] = token.special ? GgufTokenType::kControl : GgufTokenType::kUserDefined;
  }
  if (vocabulary.score_bpe && vocabulary.special.unk)
    vocabulary.types[*vocabulary.special.unk] = GgufTokenType::kUnknown;
}

Result<GgufVocabulary> vocabulary_of_json(const Json& json, const Tokenizer& tokenizer, const std::string& where) {
  const Json model = json.value("model", Json::object());
  if (model.value("type", "BPE") != "BPE") {
    return Error{concat(where, ": only BPE vocabularies can be written to GGUF; this one is ",
                        printable(model.value("type", "")))};
  }
  GgufVocabulary vocabulary;
  vocabulary.score_bpe = model.value("byte_fallback", false);
  vocabulary.special = tokenizer.special();
  vocabulary.chat_template = tokenizer.chat_template();
  SKEIN_ASSIGN(vocabulary.tokens, bpe_tokens(model, where));
  SKEIN_ASSIGN(BpeMerges merges, bpe_merges(model, where));
  std::vector<AddedToken> added;
  SKEIN_TRY(read_added_tokens(json, where, vocabulary.tokens, added));
  if (vocabulary.score_bpe) {
    score_by_merges(merges, vocabulary);
    vocabulary.add_space_prefix = prepends_space(json.value("normalizer", Json()));
  } else {
    SKEIN_TRY(find_rule(json, where, vocabulary));
    vocabulary.merges = std::move(merges);
  }
  set_types(added, vocabulary);
  return vocabulary;
}

}  // namespace

Result<GgufVocabulary> gguf_vocabulary_of(Env& env, const std::string& base) {
  SKEIN_ASSIGN(const FileFacts facts, env.facts(base));
  if (!facts.is_folder) {
    SKEIN_ASSIGN(const auto file, GgufFile::open(env, base));
    return read_gguf_vocabulary(*file);
  }
  const std::string path = join_path(base, "tokenizer.json");
  if (!env.exists(path)) {
    return Error{concat(base,
                        ": no tokenizer.json, of which a GGUF's vocabulary is made; transformers writes one with "
                        "save_pretrained of a fast tokenizer")};
  }
  SKEIN_ASSIGN(const auto tokenizer, load_tokenizer(env, base));  // checks every part of the file
  SKEIN_ASSIGN(const Json json, read_json_file(env, path));
  return vocabulary_of_json(json, *tokenizer, path);
}

Status add_vocabulary(const GgufVocabulary& vocabulary, std::int64_t vocabulary_size, GgufMetadata& metadata) {
  std::vector<std::string> tokens = vocabulary.tokens;
  std::vector<float> scores = vocabulary.scores;
  std::vector<std::int32_t> types;
  for (const GgufTokenType type : vocabulary.types) types.push_back(static_cast<std::int32_t>(type));
  if (static_cast<std::int64_t>(tokens.size()) > vocabulary_size) {
    return Error{concat("the tokenizer has ", tokens.size(), " tokens, the embedding ", vocabulary_size, " rows")};
  }
  for (std::int64_t id = 0; id < vocabulary_size; ++id) {
    if (id < static_cast<std::int64_t>(tokens.size()) && !tokens[id].empty()) continue;
    tokens.resize(std::max<std::size_t>(tokens.size(), id + 1));
    types.resize(tokens.size());
    if (vocabulary.score_bpe) scores.resize(tokens.size());
    tokens[id] = concat("[PAD", id, "]");
    types[id] = static_cast<std::int32_t>(GgufTokenType::kUnused);
  }
  metadata.add_text("tokenizer.ggml.model", vocabulary.score_bpe ? "llama" : "gpt2");
  if (!vocabulary.score_bpe) metadata.add_text("tokenizer.ggml.pre", vocabulary.rule->names.front());
  metadata.add_texts("tokenizer.ggml.tokens", tokens);
  metadata.add_integers("tokenizer.ggml.token_type", types);
  if (vocabulary.score_bpe) {
    metadata.add_numbers("tokenizer.ggml.scores", scores);
    metadata.add_flag("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  } else {
    std::vector<std::string> merges;
    for (const auto& [left, right] : vocabulary.merges) merges.push_back(concat(left, " ", right));
    metadata.add_texts("tokenizer.ggml.merges", merges);
  }
  const SpecialTokens& special = vocabulary.special;
  const auto add = [&](const char* name, const std::optional<TokenId>& id) {
    if (id) metadata.add_integer(concat("tokenizer.ggml.", name, "_token_id"), static_cast<std::uint32_t>(*id));
  };
  add("bos", special.bos);
  add("eos", special.eos);
  add("padding", special.pad);
  add("unknown", special.unk);
  metadata.add_flag("tokenizer.ggml.add_bos_token", special.add_bos);
  metadata.add_flag("tokenizer.ggml.add_eos_token", special.add_eos);
  if (vocabulary.chat_template) metadata.add_text("tokenizer.chat_template", *vocabulary.chat_template);
  return {};
}

}  // namespace skein
