#include "skein/spec/gguf_export.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/io/convert_elements.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

constexpr const char* kRopeDivisors = "rope_freqs.weight";

// general.file_type: llama.cpp's enumeration of what most matrices are.
std::uint32_t file_type(GgmlType type) {
  switch (type) {
    case GgmlType::kF16:
      return 1;
    case GgmlType::kQ8_0:
      return 7;
    case GgmlType::kBF16:
      return 32;
    default:
      return 0;
  }
}

// How many full layers follow each other's windows: every `pattern`-th layer is full. 0: no such rule.
std::int64_t sliding_pattern(const BackboneConfig& config) {
  const auto& sliding = config.layer_is_sliding;
  const auto first_full = std::find(sliding.begin(), sliding.end(), false);
  const std::int64_t pattern = first_full - sliding.begin() + 1;
  for (std::size_t layer_idx = 0; layer_idx < sliding.size(); ++layer_idx) {
    if (sliding[layer_idx] != ((static_cast<std::int64_t>(layer_idx) + 1) % pattern != 0)) return 0;
  }
  return pattern;
}

Status add_config(const BackboneConfig& config, GgmlType type, GgufMetadata& metadata) {
  const std::string architecture(family_name(config.family));
  const auto integer = [&](const char* key, std::int64_t value) {
    metadata.add_integer(concat(architecture, ".", key), static_cast<std::uint32_t>(value));
  };
  const auto number = [&](const char* key, double value) {
    metadata.add_number(concat(architecture, ".", key), static_cast<float>(value));
  };
  metadata.add_text("general.architecture", architecture);
  metadata.add_integer("general.file_type", file_type(type));
  metadata.add_integer("general.quantization_version", 2);
  integer("block_count", config.num_layers);
  integer("context_length", config.max_positions);
  integer("embedding_length", config.d_model);
  integer("feed_forward_length", config.d_ff);
  integer("attention.head_count", config.num_heads);
  integer("attention.head_count_kv", config.num_kv_heads);
  integer("attention.key_length", config.d_head);
  integer("attention.value_length", config.d_head);
  integer("rope.dimension_count", config.d_head);
  integer("vocab_size", config.vocabulary_size);
  number("attention.layer_norm_rms_epsilon", config.norm_eps);
  number("rope.freq_base", config.rope_theta);
  if (config.rope_linear_factor != 1) {
    metadata.add_text(architecture + ".rope.scaling.type", "linear");
    number("rope.scaling.factor", config.rope_linear_factor);
  }
  if (config.sliding_window == 0) return {};
  const std::int64_t pattern = sliding_pattern(config);
  if (config.family != Family::kGemma3 || pattern == 0) {
    return Error{"GGUF has no way to say which layers of this model see a window only; only Gemma 3's rule is known"};
  }
  integer("attention.sliding_window", config.sliding_window);
  if (pattern != 6) integer("attention.sliding_window_pattern", pattern);  // llama.cpp takes 6 for granted
  if (config.rope_theta_local != 1e4) number("rope.freq_base_swa", config.rope_theta_local);
  return {};
}

// Rows from Hugging Face's order to llama.cpp's.
void permute_rows(std::vector<std::byte>& bytes, std::int64_t num_rows, std::int64_t num_heads) {
  const std::int64_t row_bytes = static_cast<std::int64_t>(bytes.size()) / num_rows;
  std::vector<std::byte> out(bytes.size());
  for (std::int64_t row = 0; row < num_rows; ++row) {
    const std::int64_t stored = permuted_row(row, num_rows, num_heads);
    std::memcpy(out.data() + stored * row_bytes, bytes.data() + row * row_bytes, static_cast<std::size_t>(row_bytes));
  }
  bytes.swap(out);
}

// The bytes of one tensor as the file stores it.
Result<std::vector<std::byte>> stored_bytes(const BaseModel& base, const TensorName& name, GgmlType type) {
  const bool quantized = type == GgmlType::kQ8_0;
  const DType dtype = type == GgmlType::kBF16 ? DType::kBF16 : type == GgmlType::kF16 ? DType::kF16 : DType::kF32;
  std::vector<std::byte> bytes(static_cast<std::size_t>(checked_numel(name.shape).value_or(0) * dtype_size(dtype)));
  SKEIN_TRY(base.weights->read(name.name, dtype, bytes));
  if (name.permuted_heads > 0) permute_rows(bytes, name.shape[0], name.permuted_heads);
  if (base.config.norm_adds_one && name.role == TensorRole::kNorm) {
    auto* values = reinterpret_cast<float*>(bytes.data());
    for (std::size_t i = 0; i < bytes.size() / sizeof(float); ++i) values[i] += 1;
  }
  if (!quantized) return bytes;

  const std::int64_t num_rows = name.shape[0], columns = name.shape[1];
  const std::int64_t row_bytes = columns / ggml_block(type).elements * ggml_block(type).bytes;
  std::vector<std::byte> blocks(static_cast<std::size_t>(num_rows * row_bytes));
  std::atomic<bool> finite{true};
  parallel_for(num_rows, std::max<std::int64_t>(1, (1 << 15) / columns), [&](std::int64_t begin, std::int64_t end) {
    const auto* values = reinterpret_cast<const float*>(bytes.data());
    if (!quantize_q8_0(values + begin * columns, (end - begin) * columns, blocks.data() + begin * row_bytes)) {
      finite = false;
    }
  });
  if (finite) return blocks;
  return Error{concat(base.path, ": tensor ", name.name, " holds a NaN or an infinity, which Q8_0 cannot say")};
}

}  // namespace

Status write_gguf(Env& env, const std::string& path, const BaseModel& base, GgmlType type, GgufMetadata metadata,
                  const std::function<bool(std::int64_t, const std::string&)>& on_progress) {
  const BackboneConfig& config = base.config;
  if (config.family == Family::kT5) return Error{concat(base.path, ": a T5 model; Skein writes decoders to GGUF")};
  SKEIN_TRY(add_config(config, type, metadata));
  std::vector<TensorName> names;
  std::vector<GgufTensorPlan> plan;
  for (TensorName& name : tensor_names(config)) {
    if (name.role == TensorRole::kHead && config.tied_embeddings) continue;
    plan.push_back({name.gguf_name, name.shape.size() == 1 ? GgmlType::kF32 : type, name.shape});
    names.push_back(std::move(name));
  }
  std::vector<float> divisors;
  if (config.rope_llama3) {
    for (std::int64_t i = 0; i < config.d_head / 2; ++i) {
      divisors.push_back(static_cast<float>(llama3_divisor(*config.rope_llama3, config.rope_theta, config.d_head, i)));
    }
    plan.push_back({kRopeDivisors, GgmlType::kF32, {config.d_head / 2}});
  }
  SKEIN_ASSIGN(const auto writer, GgufWriter::create(env, path, metadata, plan));
  std::int64_t num_written = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!on_progress(num_written, names[i].name)) {
      return Error{"interrupted; nothing was written", ErrorKind::kInterrupted};
    }
    SKEIN_ASSIGN(const auto bytes, stored_bytes(base, names[i], plan[i].type));
    SKEIN_TRY(writer->append(bytes));
    num_written += static_cast<std::int64_t>(bytes.size());
  }
  if (!divisors.empty()) SKEIN_TRY(writer->append(std::as_bytes(std::span(divisors))));
  return writer->finish();
}

}  // namespace skein
