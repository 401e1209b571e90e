#include "skein/merge/tensor_reader.h"

#include <algorithm>

#include "skein/io/convert_elements.h"

namespace skein::merge {
namespace {

bool is_piece_type(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32; }

class FileReader : public TensorReader {
 public:
  // is_raw: elements of any type as they are stored.
  FileReader(const ReadableFile& file, std::uint64_t offset, DType dtype, Shape shape, bool is_raw = false)
      : file_(file), offset_(offset), stored_(dtype), shape_(std::move(shape)), is_raw_(is_raw) {}

  const Shape& shape() const override { return shape_; }
  DType dtype() const override { return is_converted() ? DType::kF32 : stored_; }
  DType stored_dtype() const override { return stored_; }
  std::shared_ptr<const TensorReader> as_stored() const override {
    return std::make_shared<FileReader>(file_, offset_, stored_, shape_, true);
  }

  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>& scratch) const override {
    const auto bytes = static_cast<std::size_t>(count * dtype_size(stored_));
    if (!is_converted()) return file_.read_at(byte_of(first), {out, bytes});
    if (scratch.size() < bytes) scratch.resize(bytes);
    SKEIN_TRY(file_.read_at(byte_of(first), {scratch.data(), bytes}));
    convert_to_f32(stored_, scratch.data(), count, reinterpret_cast<float*>(out));
    return {};
  }

  void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const override {
    out.push_back({&file_, byte_of(first), static_cast<std::uint64_t>(count * dtype_size(stored_))});
  }

  std::int64_t working_bytes(std::int64_t count) const override {
    return is_converted() ? count * dtype_size(stored_) : 0;
  }

 private:
  bool is_converted() const { return is_floating(stored_) && !is_piece_type(stored_) && !is_raw_; }
  std::uint64_t byte_of(std::int64_t element) const {
    return offset_ + static_cast<std::uint64_t>(element * dtype_size(stored_));
  }

  const ReadableFile& file_;
  std::uint64_t offset_;
  DType stored_;
  Shape shape_;
  bool is_raw_;
};

class RoundingReader : public TensorReader {
 public:
  RoundingReader(std::shared_ptr<const TensorReader> inner, DType dtype) : inner_(std::move(inner)), dtype_(dtype) {}

  const Shape& shape() const override { return inner_->shape(); }
  DType dtype() const override { return dtype_; }
  DType stored_dtype() const override { return inner_->stored_dtype(); }

  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>& scratch) const override {
    // In pieces that stay in the first-level caches; `scratch` is the inner reader's.
    constexpr std::int64_t kPiece = 4096;
    alignas(64) std::byte raw[kPiece * 4];
    alignas(64) float wide[kPiece];
    for (std::int64_t begin = 0; begin < count; begin += kPiece) {
      const std::int64_t n = std::min(kPiece, count - begin);
      SKEIN_TRY(inner_->read(first + begin, n, raw, scratch));
      convert_to_f32(inner_->dtype(), raw, n, wide);
      convert_from_f32(wide, n, dtype_, out + begin * dtype_size(dtype_));
    }
    return {};
  }

  void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const override {
    inner_->ranges(first, count, out);
  }
  std::int64_t working_bytes(std::int64_t count) const override { return inner_->working_bytes(count); }

 private:
  std::shared_ptr<const TensorReader> inner_;
  DType dtype_;
};

}  // namespace

std::unique_ptr<TensorReader> make_file_reader(const ReadableFile& file, std::uint64_t offset, DType dtype,
                                               Shape shape) {
  return std::make_unique<FileReader>(file, offset, dtype, std::move(shape));
}

std::unique_ptr<TensorReader> make_rounding_reader(std::shared_ptr<const TensorReader> inner, DType dtype) {
  return std::make_unique<RoundingReader>(std::move(inner), dtype);
}

}  // namespace skein::merge
