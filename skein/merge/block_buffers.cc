#include "skein/merge/block_buffers.h"

#include <algorithm>
#include <cstring>

namespace skein::merge {
namespace {

constexpr std::int64_t kAlignment = 64;

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::int64_t input_bytes(const OutputTensor& tensor, std::int64_t count) {
  std::int64_t bytes = 0;
  for (const auto& model : tensor.models) bytes += aligned(count * dtype_size(model->dtype()));
  if (tensor.base != nullptr) bytes += aligned(count * dtype_size(tensor.base->dtype()));
  return bytes;
}

std::int64_t result_bytes(const OutputTensor& tensor, std::int64_t count) {
  std::int64_t bytes = aligned(count * dtype_size(tensor.dtype));
  for (const auto& extra : tensor.extras) bytes += aligned(extra_bytes(extra, count));
  return bytes;
}

void grow(AlignedBytes& bytes, std::int64_t size) {
  if (bytes.size() >= size) return;
  bytes = AlignedBytes(0);  // the old one is given back first
  bytes = AlignedBytes(size);
}

}  // namespace

Result<Block> BlockBuffers::read(const OutputTensor& tensor, std::int64_t index, std::int64_t first,
                                 std::int64_t count) {
  grow(inputs_, input_bytes(tensor, count));
  pieces_.clear();
  std::byte* place = inputs_.data();
  const auto read_one = [&](const TensorReader& reader) -> Result<Piece> {
    SKEIN_TRY(reader.read(first, count, place, scratch_));
    const Piece piece{place, reader.dtype()};
    place += aligned(count * dtype_size(reader.dtype()));
    return piece;
  };
  for (const auto& model : tensor.models) {
    SKEIN_ASSIGN(const Piece piece, read_one(*model));
    pieces_.push_back(piece);
  }
  Block block{.index = index, .first = first, .count = count};
  if (tensor.base != nullptr) {
    SKEIN_ASSIGN(block.base, read_one(*tensor.base));
  }
  block.models = pieces_;
  return block;
}

Output BlockBuffers::output(const OutputTensor& tensor, std::int64_t count) {
  grow(result_, result_bytes(tensor, count));
  extras_.clear();
  std::byte* place = result_.data() + aligned(count * dtype_size(tensor.dtype));
  for (const auto& extra : tensor.extras) {
    extras_.push_back(place);
    place += aligned(extra_bytes(extra, count));
  }
  return {.data = result_.data(), .dtype = tensor.dtype, .extras = extras_};
}

Output computed_part(const Output& output, std::int64_t count) {
  if (output.dtype != DType::kF64) return output;
  return {.data = output.data + count * dtype_size(DType::kF32), .dtype = DType::kF32, .extras = output.extras};
}

void widen_in_place(const Output& output, std::int64_t count) {
  if (output.dtype != DType::kF64) return;
  // Element i is written to bytes 8i..8i+7, which end before those of f32 element i + 1, at 4 count + 4i + 4.
  const std::byte* from = output.data + count * dtype_size(DType::kF32);
  for (std::int64_t i = 0; i < count; ++i) {
    float narrow;
    std::memcpy(&narrow, from + 4 * i, sizeof(narrow));
    const double wide = narrow;
    std::memcpy(output.data + 8 * i, &wide, sizeof(wide));
  }
}

std::int64_t BlockBuffers::bytes_for(const OutputTensor& tensor, std::int64_t count) {
  std::int64_t scratch = 0;
  for (const auto& model : tensor.models) scratch = std::max(scratch, model->working_bytes(count));
  if (tensor.base != nullptr) scratch = std::max(scratch, tensor.base->working_bytes(count));
  return input_bytes(tensor, count) + result_bytes(tensor, count) + scratch;
}

}  // namespace skein::merge
