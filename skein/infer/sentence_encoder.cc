#include "skein/infer/sentence_encoder.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"

namespace skein {
namespace {

constexpr std::size_t kBatch = 32;  // texts

}  // namespace

std::shared_ptr<const SentenceEncoder> SentenceEncoder::load(Env& env, const std::string& folder) {
  const std::string config_path = join_path(folder, "config.json");
  if (!env.exists(config_path)) {
    throw Failure(
        {concat(folder, ": no config.json; expected a sentence encoder's folder (tools/fetch_models.sh minilm)")});
  }
  const BertConfig config = or_throw(bert_config_from_json(or_throw(read_json_file(env, config_path)), config_path));
  const std::string tokenizer_path = join_path(folder, "tokenizer.json");
  WordPiece tokenizer = or_throw(WordPiece::from_json(or_throw(read_text_file(env, tokenizer_path)), tokenizer_path));
  if (tokenizer.vocabulary_size() > config.vocabulary_size) {
    throw Failure({concat(tokenizer_path, ": ", tokenizer.vocabulary_size(), " tokens, and the model has ",
                          config.vocabulary_size, " embeddings; the tokenizer is another model's")});
  }
  std::int64_t max_tokens = config.max_positions;
  const std::string limits_path = join_path(folder, "sentence_bert_config.json");
  if (env.exists(limits_path)) {
    const Json limits = or_throw(read_json_file(env, limits_path));
    max_tokens = or_throw(json_integer(limits, "max_seq_length", max_tokens, limits_path));
  }
  if (max_tokens < 2 || max_tokens > config.max_positions) {
    throw Failure({concat(limits_path, ": max_seq_length ", max_tokens, "; expected 2 to ", config.max_positions)});
  }
  const auto weights = or_throw(open_safetensors(env, join_path(folder, "model.safetensors")));
  return std::shared_ptr<const SentenceEncoder>(
      new SentenceEncoder(Bert(*weights, config), std::move(tokenizer), max_tokens));
}

at::Tensor SentenceEncoder::embed(const std::vector<std::string>& texts) const {
  const c10::InferenceMode inference;
  std::vector<at::Tensor> vectors;
  for (std::size_t first = 0; first < texts.size(); first += kBatch) {
    std::vector<TokenId> ids;
    std::vector<std::int64_t> lengths;
    for (std::size_t i = first; i < std::min(texts.size(), first + kBatch); ++i) {
      const std::vector<TokenId> of_text = tokenizer_.encode(texts[i], max_tokens_);
      ids.insert(ids.end(), of_text.begin(), of_text.end());
      lengths.push_back(static_cast<std::int64_t>(of_text.size()));
    }
    const at::Tensor hidden = bert_.hidden(ids, lengths);
    std::int64_t begin = 0;
    for (const std::int64_t length : lengths) {
      const at::Tensor mean = hidden.narrow(0, begin, length).mean(0);
      vectors.push_back(mean / mean.norm().clamp_min(1e-12));
      begin += length;
    }
  }
  return vectors.empty() ? at::empty({0, width()}) : at::stack(vectors);
}

}  // namespace skein
