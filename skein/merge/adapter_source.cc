#include "skein/merge/adapter_source.h"

#include <algorithm>
#include <map>
#include <utility>

#include "skein/base/concat.h"
#include "skein/io/convert_elements.h"
#include "skein/io/safetensors.h"
#include "skein/merge/aligned_bytes.h"
#include "skein/merge/ia3_file.h"
#include "skein/merge/kernels/tiles.h"
#include "skein/merge/layer_name.h"

namespace skein::merge {
namespace {

constexpr std::string_view kKeyPrefix = "base_model.model.";

// A reader's elements as f32, whatever it gives.
Status read_as_f32(const TensorReader& reader, std::int64_t first, std::int64_t count, std::byte* out,
                   std::vector<std::byte>& scratch) {
  if (reader.dtype() == DType::kF32) return reader.read(first, count, out, scratch);
  AlignedBytes bytes(count * dtype_size(reader.dtype()));
  SKEIN_TRY(reader.read(first, count, bytes.data(), scratch));
  convert_to_f32(reader.dtype(), bytes.data(), count, reinterpret_cast<float*>(out));
  return {};
}

class LoraReader : public TensorReader {
 public:
  LoraReader(std::shared_ptr<const TensorReader> inner, LoraTensors lora)
      : inner_(std::move(inner)), lora_(std::move(lora)), d_in_(inner_->shape()[1]), kernels_(tile_kernels()) {}

  const Shape& shape() const override { return inner_->shape(); }
  DType dtype() const override { return DType::kF32; }
  DType stored_dtype() const override { return inner_->stored_dtype(); }

  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>& scratch) const override {
    SKEIN_TRY(read_as_f32(*inner_, first, count, out, scratch));
    auto* values = reinterpret_cast<float*>(out);
    alignas(64) float tile[kTile], sum[kTile];
    while (count > 0) {  // a part of one row at a time
      const std::int64_t column = first % d_in_;
      const std::int64_t part = std::min({count, d_in_ - column, kTile});
      product(first / d_in_, column, part, sum);
      const Piece piece{reinterpret_cast<const std::byte*>(values), DType::kF32};
      kernels_.load(piece, 0, part, tile);
      kernels_.add(tile, part, sum);
      kernels_.store(tile, part, Output{reinterpret_cast<std::byte*>(values), DType::kF32, {}}, 0);
      first += part;
      count -= part;
      values += part;
    }
    return {};
  }

  void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const override {
    inner_->ranges(first, count, out);
  }

  std::int64_t working_bytes(std::int64_t count) const override {
    const auto held = static_cast<std::int64_t>((lora_.a.size() + lora_.b.size()) * sizeof(float));
    return inner_->working_bytes(count) + count * dtype_size(inner_->dtype()) + held;
  }

 private:
  // sum = scale * b[row] * a[:, column, column + count)
  void product(std::int64_t row, std::int64_t column, std::int64_t count, float* sum) const {
    std::fill(sum, sum + padded(count), 0.0F);
    for (std::int64_t k = 0; k < lora_.rank; ++k) {
      const Piece a_row{reinterpret_cast<const std::byte*>(lora_.a.data() + k * d_in_), DType::kF32};
      kernels_.add_scaled(a_row, column, count, lora_.b[row * lora_.rank + k], sum);
    }
    kernels_.scale(sum, count, static_cast<float>(lora_.scale));
  }

  std::shared_ptr<const TensorReader> inner_;
  LoraTensors lora_;
  std::int64_t d_in_;
  TileKernels kernels_;
};

// inner * vector along the rows or the columns of a (D_out, D_in) weight, or along a bias (D_out).
class ScaledReader : public TensorReader {
 public:
  ScaledReader(std::shared_ptr<const TensorReader> inner, Ia3Vector vector)
      : inner_(std::move(inner)), vector_(std::move(vector)) {
    row_ = inner_->shape().size() < 2 ? 1 : inner_->shape()[1];
  }

  const Shape& shape() const override { return inner_->shape(); }
  DType dtype() const override { return DType::kF32; }
  DType stored_dtype() const override { return inner_->stored_dtype(); }

  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>& scratch) const override {
    SKEIN_TRY(read_as_f32(*inner_, first, count, out, scratch));
    auto* values = reinterpret_cast<float*>(out);
    for (std::int64_t at = 0; at < count; ++at) {
      const std::int64_t place = vector_.scales_input() ? (first + at) % row_ : (first + at) / row_;
      values[at] *= vector_.values[static_cast<std::size_t>(place)];
    }
    return {};
  }
  void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const override {
    inner_->ranges(first, count, out);
  }
  std::int64_t working_bytes(std::int64_t count) const override {
    return inner_->working_bytes(count) + count * dtype_size(inner_->dtype()) +
           static_cast<std::int64_t>(vector_.values.size() * sizeof(float));
  }

 private:
  std::shared_ptr<const TensorReader> inner_;
  Ia3Vector vector_;
  std::int64_t row_ = 1;
};

class AdaptedSource : public Source {
 public:
  AdaptedSource(std::unique_ptr<Source> base, const std::vector<InputFile>& adapter_files) : base_(std::move(base)) {
    ref = base_->ref;
    folder = base_->folder;
    adapter_folder = base_->adapter_folder;
    config = base_->config;
    files = base_->files;
    files.insert(files.end(), adapter_files.begin(), adapter_files.end());
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  }

  Status fold(AdapterFile file) {
    for (LoraTensors& lora : file.adapter.modules) {
      const SlotName& slot = file.slots[lora.slot_idx];
      const std::string name = slot.module + ".weight";
      SKEIN_ASSIGN(auto inner, weight_of(file.folder, slot.module, {slot.d_out, slot.d_in}));
      adapted_.emplace(name, make_lora_reader(std::move(inner), std::move(lora)));
    }
    return {};
  }

  // A bias is part of the output that a vector scales.
  Status scale(const Ia3File& file) {
    for (const auto& [module, vector] : file.modules) {
      const auto stored = base_->find(module + ".weight");
      Shape expected = stored == nullptr || stored->shape().size() != 2 ? Shape{0, 0} : stored->shape();
      expected[vector.scales_input() ? 1 : 0] = static_cast<std::int64_t>(vector.values.size());
      SKEIN_ASSIGN(auto inner, weight_of(file.folder, module, expected));
      adapted_.emplace(module + ".weight", std::make_shared<ScaledReader>(std::move(inner), vector));
      auto bias = base_->find(module + ".bias");
      if (bias == nullptr || vector.scales_input()) continue;
      if (bias->shape() != Shape{expected[0]} || !is_floating(bias->dtype())) {
        return Error{concat(base_->folder, ": ", printable(module), ".bias is ", to_string(bias->shape()),
                            ", which a vector for its output does not fit")};
      }
      adapted_.emplace(module + ".bias", std::make_shared<ScaledReader>(std::move(bias), vector));
    }
    return {};
  }

  const std::vector<std::string>& names() const override { return base_->names(); }
  std::shared_ptr<const TensorReader> find(const std::string& name) const override {
    const auto found = adapted_.find(name);
    return found == adapted_.end() ? base_->find(name) : found->second;
  }

 private:
  // The base's weight of a module, if it has the shape that the adapter fits.
  Result<std::shared_ptr<const TensorReader>> weight_of(const std::string& adapter, const std::string& module,
                                                        const Shape& expected) const {
    const std::string name = module + ".weight";
    auto inner = base_->find(name);
    if (inner == nullptr) {
      return Error{concat(adapter, ": adapts ", printable(module), ", but ", base_->folder, " has no tensor ",
                          printable(name), "; an adapter of another base, or of a tied matrix")};
    }
    if (inner->shape() != expected) {
      return Error{concat(adapter, ": what it has for ", printable(module), " fits a weight ", to_string(expected),
                          "; ", base_->folder, " has ", to_string(inner->shape()), "; an adapter of another base")};
    }
    if (!is_floating(inner->dtype())) {
      return Error{concat(base_->folder, ": ", printable(name), " is stored as ", dtype_name(inner->dtype()),
                          ", into which no adapter can be folded")};
    }
    return inner;
  }

  std::unique_ptr<Source> base_;
  std::map<std::string, std::shared_ptr<const TensorReader>> adapted_;
};

// "base_model.model.<module>.lora_A.weight" and its twin give a slot of the shape that the two matrices fit.
Result<std::vector<SlotName>> slots_of(const Checkpoint& file) {
  std::map<std::string, SlotName> by_module;
  for (const TensorInfo& info : file.tensors()) {
    for (const bool is_b : {false, true}) {
      const std::size_t end = info.name.rfind(is_b ? ".lora_B." : ".lora_A.");
      if (end == std::string::npos || !info.name.starts_with(kKeyPrefix) || info.shape.size() != 2) continue;
      const std::string module = info.name.substr(kKeyPrefix.size(), end - std::min(end, kKeyPrefix.size()));
      SlotName& slot = by_module[module];
      slot.module = module;
      (is_b ? slot.d_out : slot.d_in) = is_b ? info.shape[0] : info.shape[1];
    }
  }
  std::vector<SlotName> slots;
  for (auto& [module, slot] : by_module) {
    if (const auto layer = split_layer_name(module)) slot.layer = static_cast<int>(layer->layer);
    slot.kind = module.substr(module.rfind('.') + 1);
    slots.push_back(std::move(slot));
  }
  if (slots.empty()) return Error{concat(file.path(), ": holds no lora_A or lora_B; a PEFT LoRA was expected")};
  return slots;
}

Result<std::vector<InputFile>> adapter_input_files(Env& env, const std::string& folder) {
  std::vector<InputFile> files;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    const std::string path = join_path(folder, name);
    SKEIN_ASSIGN(const auto file, env.open(path));
    SKEIN_ASSIGN(InputFile input, describe_input_file(env, path, *file));
    files.push_back(std::move(input));
  }
  return files;
}

}  // namespace

std::shared_ptr<const TensorReader> make_lora_reader(std::shared_ptr<const TensorReader> inner, LoraTensors lora) {
  return std::make_shared<LoraReader>(std::move(inner), std::move(lora));
}

bool is_adapter_folder(Env& env, const std::string& folder) {
  return env.exists(join_path(folder, "adapter_config.json")) && !env.exists(join_path(folder, "config.json"));
}

Result<AdapterFile> read_adapter_file(Env& env, const std::string& folder) {
  AdapterFile result;
  result.folder = folder;
  const std::string config_path = join_path(folder, "adapter_config.json");
  if (env.exists(config_path)) {
    SKEIN_ASSIGN(const Json config, read_json_file(env, config_path));
    SKEIN_ASSIGN(const bool transposed, json_bool(config, "fan_in_fan_out", false, config_path));
    if (transposed) {
      return Error{concat(config_path,
                          ": fan_in_fan_out: the base keeps its weights transposed (GPT-2's Conv1D), "
                          "which Skein does not fold")};
    }
  }
  const std::string weights_path = join_path(folder, "adapter_model.safetensors");
  if (env.exists(weights_path)) {
    SKEIN_ASSIGN(const auto weights, open_safetensors(env, weights_path, adapter_limits()));
    // A configuration that is refused by name says more than tensors of a strange kind.
    SKEIN_ASSIGN(const Json config, read_json_file(env, config_path));
    SKEIN_TRY([&]() -> Status {
      const auto parsed = adapter_config_from_json(config, config_path);
      return parsed.ok() ? Status() : Status(parsed.error());
    }());
    SKEIN_ASSIGN(result.slots, slots_of(*weights));
  }
  SKEIN_ASSIGN(result.adapter, read_lora_adapter(env, folder, result.slots));
  SKEIN_ASSIGN(result.files, adapter_input_files(env, folder));
  return result;
}

Result<std::unique_ptr<Source>> with_adapter(Env& env, std::unique_ptr<Source> base) {
  SKEIN_CHECK(!base->adapter_folder.empty());
  const std::string folder = base->adapter_folder;
  if (env.exists(join_path(folder, "adapter_config.json"))) {
    SKEIN_ASSIGN(const AdapterKind kind, adapter_kind_of(env, folder));
    if (kind == AdapterKind::kIa3) {
      SKEIN_ASSIGN(const Ia3File file, read_ia3_file(env, folder));
      SKEIN_ASSIGN(const auto files, adapter_input_files(env, folder));
      auto source = std::make_unique<AdaptedSource>(std::move(base), files);
      SKEIN_TRY(source->scale(file));
      return std::unique_ptr<Source>(std::move(source));
    }
  }
  SKEIN_ASSIGN(AdapterFile file, read_adapter_file(env, folder));
  auto source = std::make_unique<AdaptedSource>(std::move(base), file.files);
  SKEIN_TRY(source->fold(std::move(file)));
  return std::unique_ptr<Source>(std::move(source));
}

}  // namespace skein::merge
