// GGUF v2 and v3 files as llama.cpp writes them, read only. Layout: docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "skein/base/result.h"
#include "skein/base/shape.h"
#include "skein/io/env.h"

namespace skein {

enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

// Integers of all widths are widened; arrays hold one kind. Strings of arrays (a vocabulary: 100,000 of them) stay in the
// mapped file and live as long as it.
using GgufValue =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string, std::vector<std::uint64_t>,
                 std::vector<std::int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string name;  // llama.cpp's name, e.g. "blk.0.attn_q.weight"
  GgmlType type = GgmlType::kF32;
  Shape shape;  // row-major (the file's dimensions reversed): (rows, columns)
  std::span<const std::byte> bytes;
};

// A file whose every length, count, offset and string was checked at open.
class GgufFile {
 public:
  static Result<std::unique_ptr<GgufFile>> open(Env& env, const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(const std::string& name) const;
  void release(const GgufTensor& tensor) const { map_->release(tensor.bytes); }  // its pages: read and done with
  const GgufValue* find(const std::string& key) const;  // null if absent

  // Typed look-ups: an absent key gives `otherwise`; a key of another kind is an error.
  Result<std::int64_t> integer(const std::string& key, std::optional<std::int64_t> otherwise = std::nullopt) const;
  Result<double> number(const std::string& key, std::optional<double> otherwise = std::nullopt) const;
  Result<std::string> text(const std::string& key, std::optional<std::string> otherwise = std::nullopt) const;

 private:
  friend class GgufParser;
  std::string path_;
  std::shared_ptr<const MappedFile> map_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;  // sorted by key
  std::vector<GgufTensor> tensors_;                          // in file order
};

// Blocks of a type: so many elements in so many bytes.
struct GgmlBlock {
  std::int64_t elements = 1;
  std::int64_t bytes = 0;
};
GgmlBlock ggml_block(GgmlType type);
std::string_view ggml_type_name(GgmlType type);  // "Q4_K"
// Dequantises rows [row_begin, row_end) of a tensor (1-D: one row) into `out`: (row_end - row_begin) * columns floats.
void dequantize_rows(const GgufTensor& tensor, std::int64_t row_begin, std::int64_t row_end, float* out);

}  // namespace skein
