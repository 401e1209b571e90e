#include "skein/text/word_piece.h"

#include <utf8proc.h>

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/character_class.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

// tokenizers' bert.rs: tabs and line ends are white space, other controls, formats, private and unassigned go.
bool is_control(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return true;
    default:
      return false;
  }
}

bool is_chinese(char32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

// ASCII punctuation, symbols among it, and Unicode's P*.
bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return true;
    default:
      return false;
  }
}

std::vector<char32_t> code_points(std::string_view text) {
  std::vector<char32_t> points;
  while (!text.empty()) {
    const int length = utf8_length(text);
    if (length > 0) points.push_back(decode_utf8(text));
    text.remove_prefix(static_cast<std::size_t>(std::max(1, length)));
  }
  return points;
}

// Canonical decomposition, non-spacing marks left out.
std::vector<char32_t> without_accents(const std::vector<char32_t>& points) {
  std::string text;
  for (const char32_t c : points) append_utf8(c, text);
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE));
  SKEIN_CHECK(length >= 0);
  std::vector<char32_t> result =
      code_points(std::string_view(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length)));
  std::free(mapped);  // NOLINT: utf8proc allocates with malloc
  std::erase_if(result,
                [](char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_MN; });
  return result;
}

Status expect_type(const Json& json, const std::string& key, const std::string& type, const std::string& name) {
  const auto part = json.find(key);
  const std::string found =
      part != json.end() && part->is_object() && part->contains("type") && part->at("type").is_string()
          ? part->at("type").get<std::string>()
          : "";
  if (found == type) return {};
  return Error{concat(name, ": the ", key, " is \"", printable(found), "\"; a sentence encoder's is expected to be ",
                      type, "; is this another model's tokenizer?")};
}

}  // namespace

Result<WordPiece> WordPiece::from_json(const std::string& tokenizer_json, const std::string& name) {
  SKEIN_ASSIGN(const Json json, parse_json(tokenizer_json, name));
  if (!json.is_object()) return Error{concat(name, ": not a JSON object")};
  SKEIN_TRY(expect_type(json, "normalizer", "BertNormalizer", name));
  SKEIN_TRY(expect_type(json, "pre_tokenizer", "BertPreTokenizer", name));
  SKEIN_TRY(expect_type(json, "model", "WordPiece", name));
  WordPiece result;
  const Json& normalizer = json["normalizer"];
  SKEIN_ASSIGN(result.cleans_, json_bool(normalizer, "clean_text", true, name));
  SKEIN_ASSIGN(result.spaces_chinese_, json_bool(normalizer, "handle_chinese_chars", true, name));
  SKEIN_ASSIGN(result.lowers_, json_bool(normalizer, "lowercase", true, name));
  const Json strips = normalizer.value("strip_accents", Json());
  result.strips_accents_ = strips.is_boolean() ? strips.get<bool>() : result.lowers_;
  const Json& model = json["model"];
  SKEIN_ASSIGN(result.prefix_, json_string(model, "continuing_subword_prefix", "##", name));
  SKEIN_ASSIGN(result.max_characters_, json_integer(model, "max_input_chars_per_word", 100, name));
  SKEIN_ASSIGN(const std::string unknown, json_string(model, "unk_token", "[UNK]", name));
  const Json vocabulary = model.value("vocab", Json());
  if (!vocabulary.is_object() || vocabulary.empty()) return Error{concat(name, ": model.vocab is not an object")};
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= kMostTokens) {
      return Error{concat(name, ": the id of \"", printable(token), "\" is ", printable(id.dump()),
                          "; an integer of 0 to ", kMostTokens - 1, " was expected")};
    }
    result.ids_[token] = id.get<TokenId>();
    result.vocabulary_size_ = std::max(result.vocabulary_size_, id.get<std::int64_t>() + 1);
  }
  for (const auto& [token, id] : std::initializer_list<std::pair<std::string, TokenId*>>{
           {unknown, &result.unknown_}, {"[CLS]", &result.begin_}, {"[SEP]", &result.end_}}) {
    const auto found = result.ids_.find(token);
    if (found == result.ids_.end()) return Error{concat(name, ": the vocabulary lacks ", printable(token))};
    *id = found->second;
  }
  return result;
}

// Normalised and cut at white space and around punctuation.
std::vector<std::string> WordPiece::words(std::string_view text) const {
  std::vector<char32_t> points;
  for (const char32_t c : code_points(text)) {
    if (cleans_ && (c == 0 || c == 0xfffd || is_control(c))) continue;
    const bool apart = spaces_chinese_ && is_chinese(c);
    if (apart) points.push_back(' ');
    points.push_back(cleans_ && is_white_space(c) ? U' ' : c);
    if (apart) points.push_back(' ');
  }
  if (strips_accents_) points = without_accents(points);
  std::vector<std::string> result;
  bool is_open = false;  // the last word goes on
  for (char32_t c : points) {
    if (is_white_space(c)) {
      is_open = false;
      continue;
    }
    const bool alone = is_punctuation(c);
    if (!is_open || alone) result.emplace_back();
    if (lowers_) c = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
    append_utf8(c, result.back());
    is_open = !alone;
  }
  return result;
}

// The longest piece of the vocabulary from the left, then the longest that continues it, ...; if one is missing the
// whole word is unknown.
void WordPiece::encode_word(const std::string& word, std::vector<TokenId>& ids) const {
  std::vector<std::size_t> ends;  // of the word's characters
  for (std::size_t at = 0; at < word.size();) {
    at += static_cast<std::size_t>(std::max(1, utf8_length(std::string_view(word).substr(at))));
    ends.push_back(at);
  }
  if (static_cast<std::int64_t>(ends.size()) > max_characters_) return ids.push_back(unknown_);
  const std::size_t before = ids.size();
  std::size_t begin = 0;
  for (std::size_t first = 0; first < ends.size();) {
    std::size_t last = ends.size();
    for (; last > first; --last) {
      const auto found = ids_.find((first == 0 ? "" : prefix_) + word.substr(begin, ends[last - 1] - begin));
      if (found == ids_.end()) continue;
      ids.push_back(found->second);
      break;
    }
    if (last == first) {
      ids.resize(before);
      return ids.push_back(unknown_);
    }
    begin = ends[last - 1];
    first = last;
  }
}

std::vector<TokenId> WordPiece::encode(std::string_view text, std::int64_t max_tokens) const {
  SKEIN_CHECK(max_tokens >= 2);
  std::vector<TokenId> ids = {begin_};
  for (const std::string& word : words(text)) {
    if (static_cast<std::int64_t>(ids.size()) >= max_tokens) break;
    encode_word(word, ids);
  }
  if (static_cast<std::int64_t>(ids.size()) >= max_tokens) ids.resize(static_cast<std::size_t>(max_tokens - 1));
  ids.push_back(end_);
  return ids;
}

}  // namespace skein
