// Named tensors of one model or adapter, wherever they lie: one safetensors file, a sharded folder, a GGUF file.
//
// Owns its file maps; a view lives as long as the Checkpoint. Thread-safety: const, may be shared.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/base/tensor_view.h"

namespace skein {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;  // what read() gives without conversion; for quantised tensors F32
  Shape shape;
  std::string stored_as;  // how the file spells it: "BF16", "Q4_K", ...
};

// Where a tensor's plain bytes lie.
struct TensorLocation {
  std::string file;
  std::uint64_t offset = 0;  // of its first byte
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual const std::string& path() const = 0;                        // for messages
  virtual const std::vector<TensorInfo>& tensors() const = 0;         // sorted by name
  virtual const TensorInfo* find(const std::string& name) const = 0;  // null if absent
  // The tensor's elements converted to `dtype` (F32, BF16 or F16; or its own dtype), row-major, into `out`, which has
  // exactly numel * dtype_size(dtype) bytes. Quantised blocks are dequantised in f32, then rounded to nearest even.
  // Parallel inside (parallel_for).
  virtual Status read(const std::string& name, DType dtype, std::span<std::byte> out) const = 0;
  // The bytes as they lie in the file, if they are plain (not quantised, not permuted); nothing otherwise.
  virtual std::optional<TensorView> view(const std::string& name) const = 0;
  // Where view()'s bytes lie, for those who read files themselves; nothing where they are not plain bytes of a file.
  virtual std::optional<TensorLocation> location(const std::string& /*name*/) const { return std::nullopt; }
  virtual const std::vector<std::pair<std::string, std::string>>& metadata() const = 0;  // __metadata__, sorted
};

}  // namespace skein
