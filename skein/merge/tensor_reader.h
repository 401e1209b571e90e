// Where the elements of one input tensor come from: a file, a file with an adapter folded in, rows of an embedding put
// in another order, an earlier stage of the recipe. Executor and methods see only this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "skein/base/dtype.h"
#include "skein/base/result.h"
#include "skein/base/shape.h"
#include "skein/io/env.h"

namespace skein::merge {

// A range of bytes that a reader will ask for, so that the executor can have it read ahead.
struct FileRange {
  const ReadableFile* file = nullptr;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

class TensorReader {
 public:
  virtual ~TensorReader() = default;
  virtual const Shape& shape() const = 0;
  // Of the elements that read() gives. Floating tensors: kBF16, kF16 or kF32; others: as they are stored.
  virtual DType dtype() const = 0;
  // As the file spells the elements; what types of inputs are judged by.
  virtual DType stored_dtype() const { return dtype(); }
  // The same elements with dtype() == stored_dtype(), for copies that lose nothing; null where they are made of others.
  virtual std::shared_ptr<const TensorReader> as_stored() const { return nullptr; }
  // Elements [first, first + count) of the flat tensor into `out` (count * dtype_size(dtype()) bytes, aligned to 64).
  // scratch: the calling worker's own, grown as needed and kept. Thread-safe.
  virtual Status read(std::int64_t first, std::int64_t count, std::byte* out,
                      std::vector<std::byte>& scratch) const = 0;
  // Bytes that elements [first, first + count) will be read from.
  virtual void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const = 0;
  // What `scratch` grows to at most, for blocks of `count` elements, plus what the reader itself holds.
  virtual std::int64_t working_bytes(std::int64_t count) const = 0;
};

// Elements in a plain file, row-major from byte `offset`. `file` outlives the reader.
std::unique_ptr<TensorReader> make_file_reader(const ReadableFile& file, std::uint64_t offset, DType dtype,
                                               Shape shape);
// The same elements rounded to `dtype` (kBF16 or kF16), as a recipe's `dtype` asks.
std::unique_ptr<TensorReader> make_rounding_reader(std::shared_ptr<const TensorReader> inner, DType dtype);

}  // namespace skein::merge
