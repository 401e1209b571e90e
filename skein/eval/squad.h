// Answers to questions, as SQuAD's official script compares them (arXiv 1606.05250): lower case, without punctuation,
// without the articles a, an and the.
#pragma once

#include <string>
#include <string_view>

namespace skein {

std::string normalized_answer(std::string_view text);
bool squad_exact_match(std::string_view prediction, std::string_view reference);
// F-measure of the words in common; of two answers without words 1 (as in the script of SQuAD 2.0).
double squad_f1(std::string_view prediction, std::string_view reference);

}  // namespace skein
