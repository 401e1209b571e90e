// Text of tokens that arrive one by one, never cut inside a character.
#pragma once

#include <string>

#include "skein/text/tokenizer.h"

namespace skein {

class StreamDecoder {
 public:
  // tokenizer is borrowed for this object's life. continues: the text follows other text, so that a leading space
  // stays.
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special, bool continues = false);

  // The text that this token completes: whole characters, or bytes that can never become one. All pushes and finish()
  // joined are decode() of all ids.
  std::string push(TokenId id);
  // What was held back: the start of a character whose rest never came.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool strip_space_;  // the first text is still to come, and its leading space goes
  std::string held_;
};

}  // namespace skein
