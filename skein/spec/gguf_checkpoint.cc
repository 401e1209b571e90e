// A GGUF file under Hugging Face names: rows of q and k back in their order, Gemma's norms back around zero.
#include <algorithm>
#include <cstring>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/io/convert_elements.h"
#include "skein/spec/base_model.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

// About how many elements one chunk of parallel work dequantises: large against a task's cost, small against the cache.
constexpr std::int64_t kChunkElements = 1 << 15;

struct Entry {
  const GgufTensor* tensor = nullptr;
  std::int64_t rows = 1;
  std::int64_t columns = 1;
  std::int64_t permuted_heads = 0;
  bool subtract_one = false;  // llama.cpp stores Gemma's norms as 1 + w; Hugging Face stores w and adds 1
};

std::optional<DType> plain_type(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return DType::kF32;
    case GgmlType::kF16:
      return DType::kF16;
    case GgmlType::kBF16:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

class GgufCheckpoint : public Checkpoint {
 public:
  static Result<std::unique_ptr<Checkpoint>> make(std::unique_ptr<GgufFile> file, const BackboneConfig& config) {
    auto checkpoint = std::make_unique<GgufCheckpoint>();
    for (const TensorName& name : tensor_names(config)) {
      const GgufTensor* tensor = name.gguf_name.empty() ? nullptr : file->find_tensor(name.gguf_name);
      if (tensor == nullptr) {
        return Error{concat(file->path(), ": no tensor ", name.gguf_name, " (", name.name,
                            "); the file is incomplete or of another architecture")};
      }
      if (tensor->shape != name.shape) {
        return Error{concat(file->path(), ": tensor ", name.gguf_name, " has shape ", to_string(tensor->shape),
                            "; expected ", to_string(name.shape), " by the file's own metadata")};
      }
      Entry entry{tensor, 1, name.shape.back(), name.permuted_heads,
                  config.norm_adds_one && name.role == TensorRole::kNorm};
      if (name.shape.size() == 2) entry.rows = name.shape[0];
      const DType dtype = entry.subtract_one ? DType::kF32 : plain_type(tensor->type).value_or(DType::kF32);
      checkpoint->infos_.push_back({name.name, dtype, name.shape, std::string(ggml_type_name(tensor->type))});
      checkpoint->entries_.emplace(name.name, entry);
    }
    std::sort(checkpoint->infos_.begin(), checkpoint->infos_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    checkpoint->file_ = std::move(file);
    return std::unique_ptr<Checkpoint>(std::move(checkpoint));
  }

  const std::string& path() const override { return file_->path(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = std::lower_bound(infos_.begin(), infos_.end(), name,
                                     [](const auto& info, const auto& n) { return info.name < n; });
    return it != infos_.end() && it->name == name ? &*it : nullptr;
  }
  const std::vector<std::pair<std::string, std::string>>& metadata() const override { return metadata_; }

  Status read(const std::string& name, DType dtype, std::span<std::byte> out) const override {
    const auto it = entries_.find(name);
    if (it == entries_.end()) return Error{concat(path(), ": no tensor ", printable(name))};
    const Entry& entry = it->second;
    const std::int64_t size = dtype_size(dtype);
    SKEIN_CHECK(is_conversion_target(dtype) &&
                static_cast<std::int64_t>(out.size()) == entry.rows * entry.columns * size);
    if (entry.tensor->type == GgmlType::kF32 && dtype == DType::kF32 && entry.permuted_heads == 0 &&
        !entry.subtract_one) {
      std::memcpy(out.data(), entry.tensor->bytes.data(), out.size());
      file_->release(*entry.tensor);
      return {};
    }
    const std::int64_t grain = std::max<std::int64_t>(1, kChunkElements / entry.columns);
    parallel_for(entry.rows, grain, [&](std::int64_t begin, std::int64_t end) {
      thread_local std::vector<float> floats;
      floats.resize(static_cast<std::size_t>((end - begin) * entry.columns));
      read_rows(entry, begin, end, floats.data());
      convert_from_f32(floats.data(), static_cast<std::int64_t>(floats.size()), dtype,
                       out.data() + begin * entry.columns * size);
    });
    file_->release(*entry.tensor);
    return {};
  }

  std::optional<TensorView> view(const std::string& name) const override {
    const auto it = entries_.find(name);
    if (it == entries_.end() || it->second.permuted_heads != 0 || it->second.subtract_one) return std::nullopt;
    const std::optional<DType> dtype = plain_type(it->second.tensor->type);
    if (!dtype) return std::nullopt;
    return TensorView{*dtype, it->second.tensor->shape, it->second.tensor->bytes};
  }

 private:
  static void read_rows(const Entry& entry, std::int64_t begin, std::int64_t end, float* out) {
    if (entry.permuted_heads == 0) {
      dequantize_rows(*entry.tensor, begin, end, out);
    } else {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t stored = permuted_row(row, entry.rows, entry.permuted_heads);
        dequantize_rows(*entry.tensor, stored, stored + 1, out + (row - begin) * entry.columns);
      }
    }
    if (entry.subtract_one) {
      for (std::int64_t i = 0; i < (end - begin) * entry.columns; ++i) out[i] -= 1;
    }
  }

  std::unique_ptr<GgufFile> file_;
  std::vector<TensorInfo> infos_;  // sorted by name
  std::map<std::string, Entry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;  // GGUF has none of this kind
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> gguf_as_checkpoint(std::unique_ptr<GgufFile> file, const BackboneConfig& config) {
  return GgufCheckpoint::make(std::move(file), config);
}

}  // namespace skein
