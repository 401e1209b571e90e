#include "skein/infer/encoded_batches.h"

#include "skein/base/interrupt.h"

namespace skein {

void for_each_encoded_batch(
    const LoadedModel& model, const std::vector<Example>& examples, const PromptOptions& options,
    std::int64_t max_batch_tokens,
    const std::function<void(const std::vector<EncodedExample>& encoded, std::size_t first)>& use_batch) {
  std::vector<EncodedExample> encoded;
  std::int64_t num_tokens = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    if (interrupted()) throw Failure({"interrupted while the routing was followed", ErrorKind::kInterrupted});
    encoded.push_back(encode_example(examples[i], *model.tokenizer, model.base.config, options));
    encoded.back().hint = model.hint_of(examples[i]);
    num_tokens += static_cast<std::int64_t>(encoded.back().input.size() + encoded.back().target.size());
    if (num_tokens < max_batch_tokens && i + 1 < examples.size()) continue;
    use_batch(encoded, i + 1 - encoded.size());
    encoded.clear();
    num_tokens = 0;
  }
}

}  // namespace skein
