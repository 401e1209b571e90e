// One worker's buffers: the inputs of the block at hand and its result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/aligned_bytes.h"
#include "skein/merge/method.h"
#include "skein/merge/plan.h"

namespace skein::merge {

class BlockBuffers {
 public:
  // Reads elements [first, first + count) of every input. The block points into this object until the next call.
  Result<Block> read(const OutputTensor& tensor, std::int64_t index, std::int64_t first, std::int64_t count);
  // Room for the block's result, in the tensor's type, and for the method's extra outputs.
  Output output(const OutputTensor& tensor, std::int64_t count);

  // What read() and output() need for one block of `count` elements.
  static std::int64_t bytes_for(const OutputTensor& tensor, std::int64_t count);

 private:
  AlignedBytes inputs_{0}, result_{0};
  std::vector<std::byte> scratch_;
  std::vector<Piece> pieces_;
  std::vector<std::byte*> extras_;
};

// Where a method writes a result of `count` elements: its sums are f32, so of an output in f64 it fills the upper half
// with f32, which widen_in_place() makes f64 of, exactly. Any other output is its own.
Output computed_part(const Output& output, std::int64_t count);
void widen_in_place(const Output& output, std::int64_t count);

// Bytes of an extra output that stand for `count` elements.
inline std::int64_t extra_bytes(const ExtraPlace& place, std::int64_t count) {
  return (count * place.bits_per_element + 7) / 8;
}

}  // namespace skein::merge
