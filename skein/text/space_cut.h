// For tokenizers that spell spaces "▁" and give the model whole texts: cuts a text into words where no token can reach
// across, which changes no id and lets the cache of words do its work.
//
// A merge across the place between a character x and a "▁" makes a token that holds x followed by "▁". Few x have one
// (in Gemma's vocabulary ">" alone); everywhere else the text falls apart there.
#pragma once

#include <memory>

#include "skein/text/pre_tokenizer.h"
#include "skein/text/vocabulary.h"

namespace skein {

// Null if "▁" is not a token: unknown characters on both sides of it might then belong together.
std::shared_ptr<const PreTokenizerStep> make_space_cut(const Vocabulary& vocabulary);

}  // namespace skein
