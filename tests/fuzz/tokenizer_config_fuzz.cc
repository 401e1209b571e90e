// tokenizer_config.json (and special_tokens_map.json) from strangers, beside a true tokenizer.json.
#include <cstdint>
#include <string>

#include "skein/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = tokenizer_from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3}, "merges": ["a b"]},
          "added_tokens": [{"id": 3, "content": "<s>", "special": true}]})",
      text, "input");
  if (!tokenizer.ok()) return 0;
  try {
    (void)(*tokenizer)->decode((*tokenizer)->encode("abba <s>"), true);
  } catch (const Failure&) {
  }
  (void)render_chat(**tokenizer, {{"user", "hello"}}, true);
  return 0;
}
