#include "skein/cli/bench_models.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/io/convert_elements.h"
#include "skein/io/json.h"
#include "skein/io/output_folder.h"

namespace skein {
namespace {

constexpr std::int64_t kChunk = 1 << 20;  // elements at a time
constexpr char kWeights[] = "model.safetensors";

std::uint64_t mixed(std::uint64_t z) {  // SplitMix64's finaliser
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::uint64_t stream_of(std::uint64_t seed, const std::string& name) {
  std::uint64_t hash = mixed(seed + 1);
  for (const char c : name) hash = mixed(hash ^ static_cast<unsigned char>(c));
  return hash;
}

// About normal, mean 0, deviation 1, never 0: the sum of four 16-bit uniforms, doubled and made odd; its variance is
// 4 * 4 * (2^32 - 1) / 12.
float noise_at(std::uint64_t stream, std::int64_t element) {
  const std::uint64_t z = mixed(stream + static_cast<std::uint64_t>(element) * 0x9e3779b97f4a7c15ULL);
  const std::uint64_t sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
  return static_cast<float>(2 * static_cast<std::int64_t>(sum) - 262139) * (1.0F / 75674.0F);
}

double deviation(const std::vector<float>& values, std::int64_t count) {
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = values[static_cast<std::size_t>(i)];
    sum += value;
    squares += value * value;
  }
  const double mean = sum / static_cast<double>(count);
  return std::sqrt(std::max(0.0, squares / static_cast<double>(count) - mean * mean));
}

// values[i] += scale * the noise of element first + i.
void add_noise(std::vector<float>& values, std::int64_t first, std::int64_t count, std::uint64_t stream, float scale) {
  parallel_for(count, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      values[static_cast<std::size_t>(i)] += scale * noise_at(stream, first + i);
    }
  });
}

Status append_rounded(SafetensorsWriter& writer, const std::vector<float>& values, std::int64_t count, DType dtype) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(count * dtype_size(dtype)));
  parallel_for(count, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    convert_from_f32(values.data() + begin, end - begin, dtype, bytes.data() + begin * dtype_size(dtype));
  });
  return writer.append(bytes);
}

Status write_random(Env& env, const std::string& folder, const std::vector<TensorPlan>& plan, const Json& config,
                    std::uint64_t seed) {
  SKEIN_ASSIGN(const auto output, OutputFolder::begin(env, folder, true));
  SKEIN_TRY(write_text_atomically(env, join_path(output->path(), "config.json"), config.dump(2) + "\n"));
  SKEIN_ASSIGN(const auto writer,
               SafetensorsWriter::create(env, join_path(output->path(), kWeights), plan, {{"format", "pt"}}));
  std::vector<float> values(kChunk);
  for (const auto& tensor : plan) {
    const std::int64_t size = checked_numel(tensor.shape).value();
    for (std::int64_t first = 0; first < size; first += kChunk) {
      const std::int64_t count = std::min(kChunk, size - first);
      std::fill(values.begin(), values.end(), 0.0F);
      add_noise(values, first, count, stream_of(seed, tensor.name), 0.02F);
      SKEIN_TRY(append_rounded(*writer, values, count, tensor.dtype));
    }
  }
  SKEIN_TRY(writer->finish());
  return output->commit();
}

Json config_of(const BenchShape& shape) {
  return {{"architectures", {shape.model_type == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
          {"model_type", shape.model_type},
          {"hidden_size", shape.hidden},
          {"intermediate_size", shape.feed_forward},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"head_dim", shape.head_size},
          {"vocab_size", shape.vocabulary},
          {"max_position_embeddings", 4096},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", true},
          {"torch_dtype", "bfloat16"}};
}

bool takes_noise(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32; }

// One tensor of a model, with noise, to the writer.
Status append_noisy(const ReadableFile& file, std::uint64_t offset, const TensorInfo& tensor, double noise,
                    std::uint64_t seed, SafetensorsWriter& writer) {
  const std::int64_t size = checked_numel(tensor.shape).value();
  std::vector<float> values(static_cast<std::size_t>(std::min(size, kChunk)));
  std::vector<std::byte> bytes;
  float scale = 0;
  for (std::int64_t first = 0; first < size; first += kChunk) {
    const std::int64_t count = std::min(kChunk, size - first), width = dtype_size(tensor.dtype);
    bytes.resize(static_cast<std::size_t>(count * width));
    SKEIN_TRY(file.read_at(offset + static_cast<std::uint64_t>(first * width), bytes));
    if (!takes_noise(tensor.dtype)) {
      SKEIN_TRY(writer.append(bytes));
      continue;
    }
    convert_to_f32(tensor.dtype, bytes.data(), count, values.data());
    if (first == 0) scale = static_cast<float>(noise * deviation(values, count));
    add_noise(values, first, count, stream_of(seed, tensor.name), scale);
    SKEIN_TRY(append_rounded(writer, values, count, tensor.dtype));
  }
  return {};
}

}  // namespace

const std::vector<BenchShape>& bench_shapes() {
  static const std::vector<BenchShape> kShapes{
      {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152, false},
      {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, true},
      {"tiny", "llama", 4, 64, 160, 4, 2, 16, 256, false},
  };
  return kShapes;
}

std::vector<TensorPlan> tensors_of(const BenchShape& shape) {
  const std::int64_t q = shape.heads * shape.head_size, kv = shape.kv_heads * shape.head_size;
  std::vector<TensorPlan> tensors;
  const auto add = [&](std::string name, Shape dims) { tensors.push_back({std::move(name), DType::kBF16, std::move(dims)}); };
  add("model.embed_tokens.weight", {shape.vocabulary, shape.hidden});
  add("model.norm.weight", {shape.hidden});
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = concat("model.layers.", layer, ".");
    add(prefix + "input_layernorm.weight", {shape.hidden});
    add(prefix + "post_attention_layernorm.weight", {shape.hidden});
    add(prefix + "self_attn.q_proj.weight", {q, shape.hidden});
    add(prefix + "self_attn.k_proj.weight", {kv, shape.hidden});
    add(prefix + "self_attn.v_proj.weight", {kv, shape.hidden});
    add(prefix + "self_attn.o_proj.weight", {shape.hidden, q});
    add(prefix + "mlp.gate_proj.weight", {shape.feed_forward, shape.hidden});
    add(prefix + "mlp.up_proj.weight", {shape.feed_forward, shape.hidden});
    add(prefix + "mlp.down_proj.weight", {shape.hidden, shape.feed_forward});
    if (!shape.has_qkv_bias) continue;
    add(prefix + "self_attn.q_proj.bias", {q});
    add(prefix + "self_attn.k_proj.bias", {kv});
    add(prefix + "self_attn.v_proj.bias", {kv});
  }
  return tensors;
}

std::vector<TensorPlan> large_matrices(std::int64_t count) {
  std::vector<TensorPlan> tensors;
  for (std::int64_t layer = 0; layer < count; ++layer) {
    tensors.push_back({concat("model.layers.", layer, ".mlp.up_proj.weight"), DType::kBF16, {8192, 8192}});
  }
  return tensors;
}

Status write_bench_model(Env& env, const std::string& folder, const BenchShape& shape, std::uint64_t seed) {
  return write_random(env, folder, tensors_of(shape), config_of(shape), seed);
}

Status write_large_model(Env& env, const std::string& folder, std::int64_t num_matrices, std::uint64_t seed) {
  return write_random(env, folder, large_matrices(num_matrices),
                      {{"model_type", "llama"}, {"num_hidden_layers", num_matrices}}, seed);
}

Status write_fine_tune(Env& env, const std::string& base, const std::string& folder, double noise, std::uint64_t seed) {
  SKEIN_ASSIGN(const auto weights, open_safetensors_folder(env, base));
  SKEIN_ASSIGN(const auto output, OutputFolder::begin(env, folder, true));
  SKEIN_ASSIGN(const auto names, env.list(base));
  for (const auto& name : names) {  // config, tokenizer; the index no longer holds
    SKEIN_ASSIGN(const FileFacts facts, env.facts(join_path(base, name)));
    if (facts.is_folder || name.find(".safetensors") != std::string::npos || facts.size_bytes > (64 << 20)) continue;
    SKEIN_ASSIGN(const std::string text, read_text_file(env, join_path(base, name)));
    SKEIN_TRY(write_text_atomically(env, join_path(output->path(), name), text));
  }
  std::vector<TensorPlan> plan;
  for (const auto& tensor : weights->tensors()) plan.push_back({tensor.name, tensor.dtype, tensor.shape});
  SKEIN_ASSIGN(const auto writer,
               SafetensorsWriter::create(env, join_path(output->path(), kWeights), plan, {{"format", "pt"}}));
  std::unique_ptr<ReadableFile> file;
  std::string path;
  for (const auto& tensor : weights->tensors()) {
    const auto location = weights->location(tensor.name);
    if (!location) return Error{concat(base, ": tensor ", printable(tensor.name), " is not plain numbers of a file")};
    if (location->file != path) {
      path = location->file;
      SKEIN_ASSIGN(file, env.open(path));
    }
    SKEIN_TRY(append_noisy(*file, location->offset, tensor, noise, seed, *writer));
  }
  SKEIN_TRY(writer->finish());
  return output->commit();
}

}  // namespace skein
