// M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980), in the variant of NLTK's PorterStemmer
// (mode NLTK_EXTENSIONS), which rouge-score uses.
#pragma once

#include <string>

namespace skein {

// word: lower-case ASCII letters and digits.
std::string porter_stem(std::string word);

}  // namespace skein
