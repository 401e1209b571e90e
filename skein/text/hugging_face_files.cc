// A GGUF's vocabulary as the files of a Hugging Face tokenizer. The pipeline they describe is the one
// tokenizer_from_gguf builds, step by step, so that the ids are the same. Long lists are written by hand: a JSON
// document of a quarter of a million members costs ten times its text.
#include <algorithm>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/gguf_vocabulary.h"
#include "skein/text/utf8.h"
#include "skein/text/vocabulary.h"

namespace skein {
namespace {

using Merge = std::pair<std::string, std::string>;

std::string quoted(const std::string& text) { return Json(text).dump(); }

// Every token once, as JSON wants its keys, and as text.
Status check_tokens(const GgufVocabulary& from, const Vocabulary& vocabulary, const std::string& where) {
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const std::string& token = from.tokens[id];
    if (!token.empty() && vocabulary.find(token) != id) {
      return Error{
          concat(where, ": two tokens are spelled \"", printable(token), "\"; tokenizer.json cannot hold both")};
    }
    if (valid_utf8_prefix(token) != token.size()) {
      return Error{
          concat(where, ": token ", id, " is not UTF-8 (\"", printable(token), "\"); tokenizer.json cannot hold it")};
    }
  }
  return {};
}

std::size_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// The merges that a vocabulary with scores implies: each token of two or more characters from every pair of tokens that
// spell it, highest score first. Among the pairs of one token the longer left part comes first, as transformers has it;
// SentencePiece takes the leftmost in the text instead, which no list of merges can say.
std::vector<Merge> merges_of_scores(const GgufVocabulary& from, const Vocabulary& vocabulary) {
  struct Candidate {
    TokenId merged;
    std::size_t left_bytes, left_characters;
  };
  const auto plain = [&](TokenId id) {
    return from.types[id] == GgufTokenType::kNormal || from.types[id] == GgufTokenType::kUserDefined ||
           from.types[id] == GgufTokenType::kUnused;
  };
  const auto is_plain_token = [&](std::string_view text) {
    const auto id = vocabulary.find(text);
    return id && plain(*id);
  };
  std::vector<Candidate> candidates;
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (!plain(id)) continue;
    const std::string_view token = from.tokens[id];
    for (std::size_t cut = utf8_length(token); cut > 0 && cut < token.size(); cut += utf8_length(token.substr(cut))) {
      if (is_plain_token(token.substr(0, cut)) && is_plain_token(token.substr(cut))) {
        candidates.push_back({id, cut, num_characters(token.substr(0, cut))});
      }
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
    const float score_a = from.scores[a.merged], score_b = from.scores[b.merged];
    return score_a != score_b ? score_a > score_b : a.left_characters > b.left_characters;
  });
  std::vector<Merge> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    const std::string& token = from.tokens[candidate.merged];
    merges.emplace_back(token.substr(0, candidate.left_bytes), token.substr(candidate.left_bytes));
  }
  return merges;
}

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json normalizer(const GgufVocabulary& from) {
  if (!from.score_bpe) return from.rule->nfc ? Json{{"type", "NFC"}} : Json();
  if (!from.add_space_prefix) return replace(" ", "▁");
  const Json prefix = {{"type", "Prepend"}, {"prepend", "▁"}};
  return {{"type", "Sequence"}, {"normalizers", Json::array({prefix, replace(" ", "▁")})}};
}

Json pre_tokenizer(const GgufVocabulary& from) {
  if (from.score_bpe) return {};
  Json steps = Json::array();
  for (const std::string& pattern : from.rule->patterns) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json decoder(const GgufVocabulary& from) {
  if (!from.score_bpe) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  }
  Json steps = Json::array({replace("▁", " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (from.add_space_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

Json post_processor(const GgufVocabulary& from) {
  const SpecialTokens& special = from.special;
  if (!special.add_bos && !special.add_eos) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  }
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto add_token = [&](TokenId id, Json& list, int type_id) {
    const std::string& name = from.tokens[id];
    list.push_back({{"SpecialToken", {{"id", name}, {"type_id", type_id}}}});
    tokens[name] = {{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  const auto add_text = [&](const char* text, Json& list, int type_id) {
    if (special.add_bos) add_token(*special.bos, list, type_id);
    list.push_back({{"Sequence", {{"id", text}, {"type_id", type_id}}}});
    if (special.add_eos) add_token(*special.eos, list, type_id);
  };
  add_text("A", single, 0);
  add_text("A", pair, 0);
  add_text("B", pair, 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json added_token(const AddedToken& token) {
  return {{"content", token.content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},          {"normalized", false},  {"special", token.special}};
}

std::string vocabulary_text(const GgufVocabulary& from) {
  std::string text = "{";
  for (std::size_t id = 0; id < from.tokens.size(); ++id) {
    if (from.tokens[id].empty()) continue;
    text += concat(text.size() > 1 ? "," : "", quoted(from.tokens[id]), ":", std::to_string(id));
  }
  return text + "}";
}

std::string merges_text(const std::vector<Merge>& merges) {
  std::string text = "[";
  for (const auto& [left, right] : merges) {
    text += concat(text.size() > 1 ? ",[" : "[", quoted(left), ",", quoted(right), "]");
  }
  return text + "]";
}

std::string model_text(const GgufVocabulary& from, const Vocabulary& vocabulary) {
  const bool has_bytes = std::count(from.types.begin(), from.types.end(), GgufTokenType::kByte) == 256;
  Json facts = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", from.score_bpe && has_bytes},
                {"ignore_merges", !from.score_bpe && from.rule->ignore_merges}};
  if (from.score_bpe) facts["unk_token"] = from.tokens[from.special.unk.value_or(0)];
  std::string text = facts.dump();
  text.pop_back();  // the closing brace
  text += concat(",\"vocab\":", vocabulary_text(from), ",\"merges\":");
  text += merges_text(from.score_bpe ? merges_of_scores(from, vocabulary) : from.merges);
  return text + "}";
}

std::string tokenizer_text(const GgufVocabulary& from, const Vocabulary& vocabulary) {
  Json added = Json::array();
  for (const AddedToken& token : from.added_tokens()) {
    Json entry = {{"id", token.id}};
    entry.update(added_token(token));
    added.push_back(std::move(entry));
  }
  const Json head = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", std::move(added)},
                     {"normalizer", normalizer(from)},
                     {"pre_tokenizer", pre_tokenizer(from)},
                     {"post_processor", post_processor(from)},
                     {"decoder", decoder(from)}};
  std::string text = head.dump();
  text.pop_back();
  return text + concat(",\"model\":", model_text(from, vocabulary), "}\n");
}

Json special_tokens(const GgufVocabulary& from) {
  const SpecialTokens& special = from.special;
  Json names = Json::object();
  const auto name = [&](const char* key, const std::optional<TokenId>& id) {
    if (id) names[key] = from.tokens[*id];
  };
  name("bos_token", special.bos);
  name("eos_token", special.eos);
  name("pad_token", special.pad);
  name("unk_token", special.unk);
  return names;
}

Result<std::string> config_text(const GgufVocabulary& from, const GgufFile& file) {
  Json decoder = Json::object();
  for (const AddedToken& token : from.added_tokens()) {
    // Ids are distinct: no need for the look-up that operator[] would do.
    decoder.get_ref<Json::object_t&>().emplace_back(std::to_string(token.id), added_token(token));
  }
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", from.special.add_bos},
                 {"add_eos_token", from.special.add_eos},
                 {"added_tokens_decoder", std::move(decoder)},
                 {"clean_up_tokenization_spaces", false}};
  config.update(special_tokens(from));
  SKEIN_ASSIGN(const std::string architecture, file.text("general.architecture", ""));
  SKEIN_ASSIGN(const std::int64_t context, file.integer(architecture + ".context_length", 0));
  if (context > 0) config["model_max_length"] = context;
  if (from.chat_template) config["chat_template"] = *from.chat_template;
  return config.dump(1) + "\n";
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> hugging_face_tokenizer_files(const GgufFile& file) {
  SKEIN_ASSIGN(const GgufVocabulary from, read_gguf_vocabulary(file));
  const Vocabulary vocabulary(from.tokens);
  SKEIN_TRY(check_tokens(from, vocabulary, file.path()));
  if (from.chat_template && valid_utf8_prefix(*from.chat_template) != from.chat_template->size()) {
    return Error{concat(file.path(), ": the chat template is not UTF-8; the file is damaged")};
  }
  SKEIN_ASSIGN(std::string config, config_text(from, file));
  std::vector<std::pair<std::string, std::string>> files;
  files.emplace_back("tokenizer.json", tokenizer_text(from, vocabulary));
  files.emplace_back("tokenizer_config.json", std::move(config));
  files.emplace_back("special_tokens_map.json", special_tokens(from).dump(1) + "\n");
  return files;
}

}  // namespace skein
