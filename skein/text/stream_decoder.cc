#include "skein/text/stream_decoder.h"

#include <utility>

#include "skein/text/utf8.h"

namespace skein {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special, bool continues)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      strip_space_(tokenizer.strips_leading_space() && !continues) {}

std::string StreamDecoder::push(TokenId id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  std::string piece = tokenizer_.piece(id);
  if (strip_space_ && !piece.empty()) {
    if (piece.front() == ' ') piece.erase(0, 1);
    strip_space_ = false;
  }
  held_ += piece;
  const std::size_t ready = held_.size() - incomplete_utf8_suffix(held_);
  std::string text = held_.substr(0, ready);
  held_.erase(0, ready);
  return text;
}

std::string StreamDecoder::finish() { return std::exchange(held_, {}); }

}  // namespace skein
