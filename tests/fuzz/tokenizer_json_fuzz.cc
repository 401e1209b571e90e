// tokenizer.json from strangers: read, and what was accepted spells a text and reads it back without harm.
#include <cstdint>
#include <string>

#include "skein/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = tokenizer_from_json(text, "", "input");
  if (!tokenizer.ok()) return 0;
  try {
    const auto ids = (*tokenizer)->encode("The caf\u00e9, 12345 times!\n\n <s>\xff\u4f60\u597d \U0001f600");
    (void)(*tokenizer)->decode(ids, false);
    for (const TokenId id : ids) (void)(*tokenizer)->token(id);
  } catch (const Failure&) {  // a pattern that takes too many steps
  }
  return 0;
}
