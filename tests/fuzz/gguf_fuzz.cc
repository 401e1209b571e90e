// A GGUF file from strangers: header, tensors, the model's config and the tokenizer it carries.
#include "skein/io/gguf.h"
#include "skein/spec/base_model.h"
#include "skein/text/chat_template.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto env = env_with_input(data, size);
  auto file = GgufFile::open(*env, "input");
  if (!file.ok()) return 0;
  for (const auto& tensor : (*file)->tensors()) {
    std::vector<float> out(static_cast<std::size_t>(*checked_numel(tensor.shape)));
    dequantize_rows(tensor, 0, static_cast<std::int64_t>(out.size()) / tensor.shape.back(), out.data());
  }
  const auto tokenizer = tokenizer_from_gguf(**file);
  if (tokenizer.ok()) {
    try {
      (void)(*tokenizer)->decode((*tokenizer)->encode("The caf\u00e9, 123 <s>"), true);
    } catch (const Failure&) {  // a pattern that takes too many steps
    }
    (void)render_chat(**tokenizer, {{"user", "hello"}}, true);
  }
  const auto config = config_from_gguf(**file);
  if (!config.ok() || config->num_layers + config->num_decoder_layers > 100) return 0;  // long lists are slow, no more
  const auto model = gguf_as_checkpoint(std::move(*file), *config);
  if (!model.ok()) return 0;
  for (const auto& info : (*model)->tensors()) {
    std::vector<std::byte> out(2 * static_cast<std::size_t>(*checked_numel(info.shape)));
    SKEIN_CHECK((*model)->read(info.name, DType::kBF16, out).ok());
  }
  return 0;
}
