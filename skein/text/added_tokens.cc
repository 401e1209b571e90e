#include "skein/text/added_tokens.h"

#include "skein/text/character_class.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

bool ends_with_word(std::string_view text) {
  const std::string_view last = last_character(text);
  return !last.empty() && is_word_character(decode_utf8(last));
}

bool starts_with_word(std::string_view text) { return utf8_length(text) > 0 && is_word_character(decode_utf8(text)); }

std::size_t white_space_at_end(std::string_view text) {
  std::size_t bytes = 0;
  for (;;) {
    const std::string_view last = last_character(text.substr(0, text.size() - bytes));
    if (last.empty() || !is_white_space(decode_utf8(last))) return bytes;
    bytes += last.size();
  }
}

std::size_t white_space_at_start(std::string_view text) {
  std::size_t bytes = 0;
  while (utf8_length(text.substr(bytes)) > 0 && is_white_space(decode_utf8(text.substr(bytes)))) {
    bytes += utf8_length(text.substr(bytes));
  }
  return bytes;
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  trie_.insert(token.content, static_cast<std::int32_t>(tokens_.size()));
  tokens_.push_back(std::move(token));
}

std::vector<AddedTokens::Segment> AddedTokens::split(std::string_view text, bool parse_special) const {
  std::vector<Segment> segments;
  std::size_t done = 0;  // text before it is in a segment
  for (std::size_t at = 0; at < text.size();) {
    const auto match = trie_.longest_prefix(text.substr(at));
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match->number];
    std::size_t begin = at, end = at + match->length;
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    // White space that an earlier token took with it stays with that one. (It can reach past this match's begin only
    // when the match is white space itself.)
    if (begin < done) continue;
    if (token.lstrip) begin -= white_space_at_end(text.substr(done, begin - done));
    if (token.rstrip) end += white_space_at_start(text.substr(end));
    if (done < begin) segments.push_back({-1, text.substr(done, begin - done)});
    segments.push_back({token.id, text.substr(begin, end - begin)});
    done = end;
  }
  if (done < text.size()) segments.push_back({-1, text.substr(done)});
  return segments;
}

}  // namespace skein
