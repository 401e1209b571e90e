#include "skein/nn/bert/bert.h"

#include <cmath>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

constexpr std::int64_t kMost = 1 << 20;  // of any size in a configuration

at::Tensor read(const Checkpoint& weights, const std::string& name, std::vector<std::int64_t> shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  load_into(weights, name, tensor);
  return tensor;
}

}  // namespace

Result<BertConfig> bert_config_from_json(const Json& config, const std::string& path) {
  if (!config.is_object()) return Error{concat(path, ": not a JSON object")};
  SKEIN_ASSIGN(const std::string type, json_string(config, "model_type", "", path));
  if (type != "bert") {
    return Error{concat(path, ": model_type \"", printable(type), "\"; a sentence encoder is expected to be bert")};
  }
  SKEIN_ASSIGN(const std::string activation, json_string(config, "hidden_act", "gelu", path));
  SKEIN_ASSIGN(const std::string positions, json_string(config, "position_embedding_type", "absolute", path));
  if (activation != "gelu" || positions != "absolute") {
    return Error{concat(path, ": hidden_act \"", printable(activation), "\", position_embedding_type \"",
                        printable(positions), "\"; Skein has gelu and absolute")};
  }
  BertConfig result;
  for (const auto& [key, to] : std::initializer_list<std::pair<const char*, std::int64_t*>>{
           {"vocab_size", &result.vocabulary_size},
           {"num_hidden_layers", &result.num_layers},
           {"hidden_size", &result.d_model},
           {"num_attention_heads", &result.num_heads},
           {"intermediate_size", &result.d_ff},
           {"max_position_embeddings", &result.max_positions}}) {
    SKEIN_ASSIGN(*to, json_integer(config, key, std::nullopt, path));
    if (*to < 1 || *to > kMost) return Error{concat(path, ": ", key, " is ", *to, "; 1 to ", kMost, " are allowed")};
  }
  if (result.d_model % result.num_heads != 0) {
    return Error{
        concat(path, ": hidden_size ", result.d_model, " is no multiple of num_attention_heads ", result.num_heads)};
  }
  SKEIN_ASSIGN(result.norm_eps, json_number(config, "layer_norm_eps", 1e-12, path));
  return result;
}

Bert::Bert(const Checkpoint& weights, const BertConfig& config) : config_(config) {
  const std::int64_t d = config.d_model;
  // Some checkpoints carry the model under its class's name.
  const std::string root = weights.find("bert.embeddings.word_embeddings.weight") != nullptr ? "bert." : "";
  const auto norm = [&](const std::string& name) {
    return Norm{read(weights, root + name + ".weight", {d}), read(weights, root + name + ".bias", {d})};
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    return Linear{read(weights, root + name + ".weight", {out, in}), read(weights, root + name + ".bias", {out})};
  };
  words_ = read(weights, root + "embeddings.word_embeddings.weight", {config.vocabulary_size, d});
  positions_ = read(weights, root + "embeddings.position_embeddings.weight", {config.max_positions, d});
  type_ = load_tensor(weights, root + "embeddings.token_type_embeddings.weight", {}).select(0, 0);
  embedding_norm_ = norm("embeddings.LayerNorm");
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = concat("encoder.layer.", i, ".");
    layers_.push_back({.query = linear(layer + "attention.self.query", d, d),
                       .key = linear(layer + "attention.self.key", d, d),
                       .value = linear(layer + "attention.self.value", d, d),
                       .attended = linear(layer + "attention.output.dense", d, d),
                       .inner = linear(layer + "intermediate.dense", config.d_ff, d),
                       .outer = linear(layer + "output.dense", d, config.d_ff),
                       .after_attention = norm(layer + "attention.output.LayerNorm"),
                       .after_feed_forward = norm(layer + "output.LayerNorm")});
  }
}

at::Tensor Bert::Linear::operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }

at::Tensor Bert::normalised(const at::Tensor& x, const Norm& norm) const {
  return at::layer_norm(x, {config_.d_model}, norm.weight, norm.bias, config_.norm_eps);
}

at::Tensor Bert::attention(const Layer& layer, const at::Tensor& x, const std::vector<std::int64_t>& lengths) const {
  const std::int64_t d_head = config_.d_model / config_.num_heads;
  const auto heads = [&](const at::Tensor& rows) {  // (N, D) -> (H, N, Dh)
    return rows.view({-1, config_.num_heads, d_head}).transpose(0, 1);
  };
  const at::Tensor q = heads(layer.query(x)) / std::sqrt(static_cast<double>(d_head)), k = heads(layer.key(x)),
                   v = heads(layer.value(x));
  std::vector<at::Tensor> parts;
  std::int64_t begin = 0;
  for (const std::int64_t length : lengths) {
    const auto part = [&](const at::Tensor& all) { return all.narrow(1, begin, length); };
    const at::Tensor weights = at::softmax(at::matmul(part(q), part(k).transpose(1, 2)), -1);  // (H, T, T)
    parts.push_back(at::matmul(weights, part(v)).transpose(0, 1).reshape({length, config_.d_model}));
    begin += length;
  }
  return layer.attended(at::cat(parts));
}

at::Tensor Bert::hidden(const std::vector<std::int32_t>& ids, const std::vector<std::int64_t>& lengths) const {
  std::vector<std::int64_t> wide(ids.begin(), ids.end()), places;
  for (const std::int64_t length : lengths) {
    SKEIN_CHECK(length >= 1 && length <= config_.max_positions);
    for (std::int64_t i = 0; i < length; ++i) places.push_back(i);
  }
  SKEIN_CHECK(places.size() == wide.size());
  at::Tensor x = at::embedding(words_, at::tensor(wide, at::kLong)) +
                 at::embedding(positions_, at::tensor(places, at::kLong)) + type_;
  x = normalised(x, embedding_norm_);
  for (const Layer& layer : layers_) {
    x = normalised(x + attention(layer, x, lengths), layer.after_attention);
    x = normalised(x + layer.outer(at::gelu(layer.inner(x))), layer.after_feed_forward);
  }
  return x;
}

}  // namespace skein
