// The element-wise parts of a block, each one pass over memory: norm, rotary embedding, gated activation; and their
// gradients. Values are f32 or bf16; sums and functions are f32, rounded once at the end (or where transformers
// rounds).
//
// Run-time dispatch on the CPU's vector instructions. Pure functions of rows: a row's result does not depend on others.
#pragma once

#include <cstdint>

#include "skein/spec/backbone_config.h"

namespace skein {

enum class Element { kF32, kBf16 };

// Rows of `width` contiguous elements, `stride` elements apart.
struct ConstRows {
  const void* data = nullptr;
  std::int64_t stride = 0;
};
struct MutableRows {
  void* data = nullptr;
  std::int64_t stride = 0;
};

struct NormShape {
  Element element = Element::kF32;
  std::int64_t width = 0;
  float eps = 0;
  bool rounds_before_weight = true;  // the normalised row is rounded to bf16 first
};
// y = x / sqrt(mean(x^2) + eps) * weight for rows [begin, end).
void rms_norm_rows(const NormShape& shape, ConstRows x, const float* weight, MutableRows y, std::int64_t begin,
                   std::int64_t end);
// grad_x for grad_y.
void rms_norm_rows_backward(const NormShape& shape, ConstRows x, const float* weight, ConstRows grad_y,
                            MutableRows grad_x, std::int64_t begin, std::int64_t end);

struct RotaryShape {
  Element element = Element::kF32;
  std::int64_t heads = 0, half = 0;  // a row has heads * 2 * half elements
  bool inverse = false;              // turn back
};
// cos, sin: (N, half) f32.
void rotate_rows(const RotaryShape& shape, ConstRows x, const float* cos, const float* sin, MutableRows y,
                 std::int64_t begin, std::int64_t end);

struct GateShape {
  Element element = Element::kF32;
  std::int64_t width = 0;
  Activation activation = Activation::kSilu;
};
// y = act(gate) * up.
void gate_rows(const GateShape& shape, ConstRows gate, ConstRows up, MutableRows y, std::int64_t begin,
               std::int64_t end);
void gate_rows_backward(const GateShape& shape, ConstRows gate, ConstRows up, ConstRows grad_y, MutableRows grad_gate,
                        MutableRows grad_up, std::int64_t begin, std::int64_t end);

}  // namespace skein
