#include "skein/text/special_tokens.h"

#include <algorithm>
#include <array>

namespace skein {

bool ends_generation(std::string_view token) {
  static constexpr std::array<std::string_view, 15> kNames = {
      "</s>",       "<eos>",      "<end_of_turn>", "<turn|>",         "<end_of_utterance>",
      "<|im_end|>", "<|eot_id|>", "<|eom_id|>",    "<|end_of_text|>", "<|endoftext|>",
      "<|end|>",    "<|return|>", "<|call|>",      "<EOT>",           "<｜end▁of▁sentence｜>"};
  return std::find(kNames.begin(), kNames.end(), token) != kNames.end();
}

void find_end_of_generation(const std::vector<AddedToken>& added, SpecialTokens& special) {
  auto& ends = special.end_of_generation;
  ends.clear();
  if (special.eos) ends.push_back(*special.eos);
  for (const AddedToken& token : added) {
    if (token.special && ends_generation(token.content)) ends.push_back(token.id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

}  // namespace skein
