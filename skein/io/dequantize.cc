// ggml's block formats to floats: docs/formats/gguf.md. Products and sums round as gguf-py's do, so results are equal
// bit for bit.
//
// The loops over a block are short and of fixed length so that they vectorise with the baseline instructions.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include <cstring>

#include "skein/base/check.h"
#include "skein/base/half.h"
#include "skein/io/convert_elements.h"
#include "skein/io/gguf.h"

namespace skein {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return f16_to_f32(bits);
}

// Each function turns one block into its floats.

void block_q4_0(Bytes block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    const int q = block[2 + i];
    out[i] = d * static_cast<float>((q & 15) - 8);
    out[i + 16] = d * static_cast<float>((q >> 4) - 8);
  }
}

void block_q4_1(Bytes block, float* __restrict out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int q = block[4 + i];
    out[i] = d * static_cast<float>(q & 15) + m;
    out[i + 16] = d * static_cast<float>(q >> 4) + m;
  }
}

// The fifth bits of 32 elements, bit i for element i, as bytes 0 or 16.
void fifth_bits(Bytes packed, std::uint8_t* __restrict high) {
  for (int byte = 0; byte < 4; ++byte) {
    for (int bit = 0; bit < 8; ++bit)
      high[8 * byte + bit] = static_cast<std::uint8_t>(((packed[byte] >> bit) & 1) << 4);
  }
}

void block_q5_0(Bytes block, float* __restrict out) {
  const float d = half_at(block);
  std::uint8_t high[32];
  fifth_bits(block + 2, high);
  for (int i = 0; i < 16; ++i) {
    const int q = block[6 + i];
    out[i] = d * static_cast<float>(((q & 15) | high[i]) - 16);
    out[i + 16] = d * static_cast<float>(((q >> 4) | high[i + 16]) - 16);
  }
}

void block_q5_1(Bytes block, float* __restrict out) {
  const float d = half_at(block), m = half_at(block + 2);
  std::uint8_t high[32];
  fifth_bits(block + 4, high);
  for (int i = 0; i < 16; ++i) {
    const int q = block[8 + i];
    out[i] = d * static_cast<float>((q & 15) | high[i]) + m;
    out[i + 16] = d * static_cast<float>((q >> 4) | high[i + 16]) + m;
  }
}

void block_q8_0(Bytes block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
}

// Eight 6-bit scales and eight 6-bit minima in twelve bytes: the first four of each lie in the low bits of bytes 0-3
// and 4-7; the last four have their low nibbles in bytes 8-11 and their two high bits atop bytes 0-3 and 4-7.
struct KScales {
  std::uint8_t scale[8];
  std::uint8_t minimum[8];
};

KScales k_scales(Bytes packed) {
  KScales scales;
  for (int j = 0; j < 4; ++j) {
    scales.scale[j] = packed[j] & 63;
    scales.minimum[j] = packed[j + 4] & 63;
    scales.scale[j + 4] = static_cast<std::uint8_t>((packed[j + 8] & 15) | (packed[j] >> 6) << 4);
    scales.minimum[j + 4] = static_cast<std::uint8_t>((packed[j + 8] >> 4) | (packed[j + 4] >> 6) << 4);
  }
  return scales;
}

void block_q4_k(Bytes block, float* __restrict out) {
  const float d = half_at(block), d_min = half_at(block + 2);
  const KScales scales = k_scales(block + 4);
  for (int pair = 0; pair < 4; ++pair) {  // 64 elements: low nibbles of 32 bytes, then their high nibbles
    const Bytes q = block + 16 + 32 * pair;
    const float low = d * static_cast<float>(scales.scale[2 * pair]),
                high = d * static_cast<float>(scales.scale[2 * pair + 1]);
    const float low_min = d_min * static_cast<float>(scales.minimum[2 * pair]);
    const float high_min = d_min * static_cast<float>(scales.minimum[2 * pair + 1]);
    float* __restrict to = out + 64 * pair;
    for (int i = 0; i < 32; ++i) {
      to[i] = low * static_cast<float>(q[i] & 15) - low_min;
      to[i + 32] = high * static_cast<float>(q[i] >> 4) - high_min;
    }
  }
}

void block_q5_k(Bytes block, float* __restrict out) {
  const float d = half_at(block), d_min = half_at(block + 2);
  const KScales scales = k_scales(block + 4);
  const Bytes high_bits = block + 16;
  for (int pair = 0; pair < 4; ++pair) {
    const Bytes q = block + 48 + 32 * pair;
    const float low = d * static_cast<float>(scales.scale[2 * pair]),
                high = d * static_cast<float>(scales.scale[2 * pair + 1]);
    const float low_min = d_min * static_cast<float>(scales.minimum[2 * pair]);
    const float high_min = d_min * static_cast<float>(scales.minimum[2 * pair + 1]);
    float* __restrict to = out + 64 * pair;
    for (int i = 0; i < 32; ++i) {
      const int bits = high_bits[i] >> (2 * pair);
      to[i] = low * static_cast<float>((q[i] & 15) | (bits & 1) << 4) - low_min;
      to[i + 32] = high * static_cast<float>((q[i] >> 4) | (bits & 2) << 3) - high_min;
    }
  }
}

void block_q6_k(Bytes block, float* __restrict out) {
  const float d = half_at(block + 208);
  float scale[16];
  for (int i = 0; i < 16; ++i) scale[i] = d * static_cast<float>(static_cast<std::int8_t>(block[192 + i]));
  for (int half = 0; half < 2; ++half) {  // 128 elements each
    const Bytes low = block + 64 * half, high = block + 128 + 32 * half;
    const float* s = scale + 8 * half;
    float* __restrict to = out + 128 * half;
    for (int part = 0; part < 2; ++part) {  // 16 elements of each of four groups of 32 share a scale
      for (int j = 0; j < 16; ++j) {
        const int i = 16 * part + j;
        const int h = high[i];
        to[i] = s[part] * static_cast<float>(((low[i] & 15) | (h & 3) << 4) - 32);
        to[i + 32] = s[part + 2] * static_cast<float>(((low[i + 32] & 15) | (h >> 2 & 3) << 4) - 32);
        to[i + 64] = s[part + 4] * static_cast<float>(((low[i] >> 4) | (h >> 4 & 3) << 4) - 32);
        to[i + 96] = s[part + 6] * static_cast<float>(((low[i + 32] >> 4) | (h >> 6) << 4) - 32);
      }
    }
  }
}

template <void (*block_function)(Bytes, float* __restrict), int elements, int bytes>
void dequantize_blocks(Bytes from, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) block_function(from + i * bytes, out + i * elements);
}

}  // namespace

void dequantize_rows(const GgufTensor& tensor, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const std::int64_t columns = tensor.shape.back();
  const GgmlBlock block = ggml_block(tensor.type);
  const std::int64_t row_bytes = columns / block.elements * block.bytes;
  SKEIN_CHECK(0 <= row_begin && row_begin <= row_end &&
              row_end * row_bytes <= static_cast<std::int64_t>(tensor.bytes.size()));
  const std::byte* raw = tensor.bytes.data() + row_begin * row_bytes;
  const auto from = reinterpret_cast<Bytes>(raw);
  const std::int64_t elements = (row_end - row_begin) * columns;
  const std::int64_t blocks = elements / block.elements;
  switch (tensor.type) {
    case GgmlType::kF32:
      std::memcpy(out, raw, static_cast<std::size_t>(elements) * 4);
      return;
    case GgmlType::kF16:
      convert_to_f32(DType::kF16, raw, elements, out);
      return;
    case GgmlType::kBF16:
      convert_to_f32(DType::kBF16, raw, elements, out);
      return;
    case GgmlType::kQ4_0:
      dequantize_blocks<block_q4_0, 32, 18>(from, blocks, out);
      return;
    case GgmlType::kQ4_1:
      dequantize_blocks<block_q4_1, 32, 20>(from, blocks, out);
      return;
    case GgmlType::kQ5_0:
      dequantize_blocks<block_q5_0, 32, 22>(from, blocks, out);
      return;
    case GgmlType::kQ5_1:
      dequantize_blocks<block_q5_1, 32, 24>(from, blocks, out);
      return;
    case GgmlType::kQ8_0:
      dequantize_blocks<block_q8_0, 32, 34>(from, blocks, out);
      return;
    case GgmlType::kQ4_K:
      dequantize_blocks<block_q4_k, 256, 144>(from, blocks, out);
      return;
    case GgmlType::kQ5_K:
      dequantize_blocks<block_q5_k, 256, 176>(from, blocks, out);
      return;
    case GgmlType::kQ6_K:
      dequantize_blocks<block_q6_k, 256, 210>(from, blocks, out);
      return;
  }
}

}  // namespace skein
