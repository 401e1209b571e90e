#include "skein/text/pipeline_tokenizer.h"

#include <atomic>

#include "skein/base/concat.h"
#include "skein/text/byte_alphabet.h"
#include "skein/text/utf8.h"
#include "skein/text/word_cache.h"

namespace skein {
namespace {

constexpr std::size_t kMaxEncodedBytes = std::size_t{1} << 30;  // the models count in 32 bits
constexpr std::string_view kMetaspace = "▁";

std::uint32_t next_serial() {
  static std::atomic<std::uint32_t> last{0};
  return ++last;
}

std::string metaspace_piece(std::string_view token) {
  const int byte = ByteFallback::byte_of(token);
  if (byte >= 0) return std::string(1, static_cast<char>(byte));
  std::string piece;
  for (std::size_t at = 0; at < token.size();) {
    if (token.substr(at).starts_with(kMetaspace)) {
      piece += ' ';
      at += kMetaspace.size();
    } else {
      piece += token[at++];
    }
  }
  return piece;
}

}  // namespace

PipelineTokenizer::PipelineTokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), added_of_id_(parts_.added.size()), serial_(next_serial()) {
  for (std::size_t i = 0; i < parts_.added.size(); ++i) {
    AddedToken token = parts_.added[i];
    added_of_id_.insert(static_cast<std::uint64_t>(token.id), static_cast<std::int32_t>(i));
    if (token.normalized && !parts_.normalizer.empty() && valid_utf8_prefix(token.content) == token.content.size()) {
      token.content = parts_.normalizer.apply(token.content);
      normal_.add(std::move(token));
    } else {
      // Without a normaliser the two searches are one after the other over the same text, given first.
      (token.normalized ? normal_ : given_).add(std::move(token));
    }
  }
}

std::vector<TokenId> PipelineTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxEncodedBytes) {
    throw Failure(Error{concat("a text of ", text.size(), " bytes is too long to encode at once")});
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + parts_.prefix.size() + parts_.suffix.size());
  if (options.add_special) ids = parts_.prefix;
  for (const auto& segment : given_.split(text, options.parse_special)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_text(segment.text, segment.text.data() == text.data(), options.parse_special, ids);
    }
  }
  if (options.add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

// Well-formed runs go on; bytes that are not UTF-8 go to the model as they are, a run at a time.
void PipelineTokenizer::encode_text(std::string_view text, bool at_start, bool parse_special,
                                    std::vector<TokenId>& ids) const {
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    if (valid > 0) encode_normal(text.substr(0, valid), at_start, parse_special, ids);
    text.remove_prefix(valid);
    const std::size_t invalid = invalid_utf8_prefix(text);
    if (invalid > 0) parts_.model->encode(text.substr(0, invalid), ids);
    text.remove_prefix(invalid);
    at_start = false;
  }
}

void PipelineTokenizer::encode_normal(std::string_view text, bool at_start, bool parse_special,
                                      std::vector<TokenId>& ids) const {
  std::string normal;
  if (!parts_.normalizer.empty()) {
    normal = parts_.normalizer.apply(text);
    text = normal;
  }
  if (normal_.empty()) {
    encode_words(text, at_start, ids);
    return;
  }
  for (const auto& segment : normal_.split(text, parse_special)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_words(segment.text, at_start && segment.text.data() == text.data(), ids);
    }
  }
}

void PipelineTokenizer::encode_words(std::string_view text, bool at_start, std::vector<TokenId>& ids) const {
  thread_local SplitText split;
  split.reset(text, at_start);
  parts_.pre_tokenizer.apply(split);
  WordCache& cache = WordCache::of_this_thread();
  for (const auto& span : split.spans) {
    const std::string_view word = split.piece(span);
    if (cache.append(serial_, word, ids)) continue;
    const std::size_t first = ids.size();
    parts_.model->encode(word, ids);
    cache.remember(serial_, word, ids, first);
  }
}

std::string PipelineTokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string text;
  for (const TokenId id : ids) {
    if (!skip_special || !is_special(id)) text += piece(id);
  }
  if (parts_.strips_leading_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string_view PipelineTokenizer::token(TokenId id) const {
  return parts_.vocabulary->contains(id) ? std::string_view((*parts_.vocabulary)[id]) : std::string_view();
}

std::string PipelineTokenizer::piece(TokenId id) const {
  if (!parts_.vocabulary->contains(id)) return {};
  if (const std::int32_t* added = added_of_id_.find(static_cast<std::uint64_t>(id)))
    return parts_.added[*added].content;
  const std::string& token = (*parts_.vocabulary)[id];
  if (parts_.spelling == TokenSpelling::kMetaspace) return metaspace_piece(token);
  return bytes_of_spelling(token).value_or(token);
}

bool PipelineTokenizer::is_special(TokenId id) const {
  if (id < 0) return false;
  const std::int32_t* added = added_of_id_.find(static_cast<std::uint64_t>(id));
  return added != nullptr && parts_.added[*added].special;
}

}  // namespace skein
