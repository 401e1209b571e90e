#include "skein/nn/kernels/row_ops.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/row_ops.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

template <typename T>
const T* row_of(ConstRows rows, std::int64_t row) {
  return static_cast<const T*>(rows.data) + row * rows.stride;
}
template <typename T>
T* row_of(MutableRows rows, std::int64_t row) {
  return static_cast<T*>(rows.data) + row * rows.stride;
}

// ---- norm ----------------------------------------------------------------------------------------------------------

// sum of f(i) over the row: f takes a vector of x and its place.
template <typename T, typename Function>
HWY_INLINE float sum_over(const T* x, std::int64_t width, const Function& function) {
  Vec sum = hn::Zero(Floats());
  std::int64_t i = 0;
  for (; i + lanes() <= width; i += lanes()) sum = hn::Add(sum, function(load(x + i), i));
  return hn::GetLane(hn::SumOfLanes(Floats(), sum));
}

template <typename T>
float inverse_rms(const T* x, const NormShape& shape) {
  float sum = sum_over(x, shape.width, [](Vec v, std::int64_t) { return hn::Mul(v, v); });
  for (std::int64_t i = shape.width / lanes() * lanes(); i < shape.width; ++i) sum += widen(x[i]) * widen(x[i]);
  return 1.0F / std::sqrt(sum / static_cast<float>(shape.width) + shape.eps);
}

template <typename T>
void rms_norm(const NormShape& shape, ConstRows x_rows, const float* weight, MutableRows y_rows, std::int64_t begin,
              std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = row_of<T>(x_rows, row);
    T* y = row_of<T>(y_rows, row);
    const float scale = inverse_rms(x, shape);
    const Vec scales = hn::Set(Floats(), scale);
    std::int64_t i = 0;
    for (; i + lanes() <= shape.width; i += lanes()) {
      Vec normal = hn::Mul(load(x + i), scales);
      if (shape.rounds_before_weight) normal = rounded_as(normal, x);
      store(hn::Mul(normal, load(weight + i)), y + i);
    }
    for (; i < shape.width; ++i) {
      T normal;
      narrow_to(widen(x[i]) * scale, &normal);
      narrow_to((shape.rounds_before_weight ? widen(normal) : widen(x[i]) * scale) * weight[i], y + i);
    }
  }
}

// With r = 1/rms and n = x r: grad_x = r (g w - n mean(g w n)).
template <typename T>
void rms_norm_backward(const NormShape& shape, ConstRows x_rows, const float* weight, ConstRows grad_rows,
                       MutableRows out_rows, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = row_of<T>(x_rows, row);
    const T* grad = row_of<T>(grad_rows, row);
    T* out = row_of<T>(out_rows, row);
    const float scale = inverse_rms(x, shape);
    float dot = sum_over(x, shape.width,
                         [&](Vec v, std::int64_t i) { return hn::Mul(hn::Mul(v, load(grad + i)), load(weight + i)); });
    const std::int64_t whole = shape.width / lanes() * lanes();
    for (std::int64_t i = whole; i < shape.width; ++i) dot += widen(x[i]) * widen(grad[i]) * weight[i];
    const float pull = dot * scale * scale * scale / static_cast<float>(shape.width);
    const Vec scales = hn::Set(Floats(), scale), pulls = hn::Set(Floats(), pull);
    for (std::int64_t i = 0; i < whole; i += lanes()) {
      const Vec direct = hn::Mul(hn::Mul(load(grad + i), load(weight + i)), scales);
      store(hn::NegMulAdd(load(x + i), pulls, direct), out + i);
    }
    for (std::int64_t i = whole; i < shape.width; ++i) {
      narrow_to(widen(grad[i]) * weight[i] * scale - widen(x[i]) * pull, out + i);
    }
  }
}

// ---- rotary embedding ----------------------------------------------------------------------------------------------

template <typename T>
void rotate(const RotaryShape& shape, ConstRows x_rows, const float* cos, const float* sin, MutableRows y_rows,
            std::int64_t begin, std::int64_t end) {
  const std::int64_t half = shape.half;
  const float sign = shape.inverse ? -1.0F : 1.0F;
  const Vec signs = hn::Set(Floats(), sign);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* c = cos + row * half;
    const float* s = sin + row * half;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      const T* x = row_of<T>(x_rows, row) + head * 2 * half;
      T* y = row_of<T>(y_rows, row) + head * 2 * half;
      std::int64_t i = 0;
      for (; i + lanes() <= half; i += lanes()) {
        const Vec first = load(x + i), second = load(x + half + i);
        const Vec cosine = load(c + i), sine = hn::Mul(load(s + i), signs);
        store(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), y + i);
        store(hn::MulAdd(first, sine, hn::Mul(second, cosine)), y + half + i);
      }
      for (; i < half; ++i) {
        const float first = widen(x[i]), second = widen(x[half + i]);
        narrow_to(first * c[i] - second * s[i] * sign, y + i);
        narrow_to(second * c[i] + first * s[i] * sign, y + half + i);
      }
    }
  }
}

// ---- gated activation ----------------------------------------------------------------------------------------------

// An activation's value and slope at x.
struct Slope {
  Vec value, slope;
};

HWY_INLINE Vec sigmoid(Vec x) {
  const Vec one = hn::Set(Floats(), 1.0F);
  const Vec decay = hn::Exp(Floats(), hn::Min(hn::Neg(x), hn::Set(Floats(), 88.0F)));  // beyond: a denormal
  return hn::Div(one, hn::Add(one, decay));
}

HWY_INLINE Slope silu(Vec x) {
  const Vec s = sigmoid(x), value = hn::Mul(x, s);
  return {value, hn::MulAdd(value, hn::Sub(hn::Set(Floats(), 1.0F), s), s)};
}

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
HWY_INLINE Slope gelu_tanh(Vec x) {
  const Floats d;
  const Vec linear = hn::Set(d, 1.5957691216057308F), cubic = hn::Set(d, 0.044715F);  // 2 sqrt(2/pi)
  const Vec square = hn::Mul(x, x), one = hn::Set(d, 1.0F);
  const Vec s = sigmoid(hn::Mul(hn::Mul(linear, x), hn::MulAdd(cubic, square, one)));
  const Vec value = hn::Mul(x, s);
  const Vec inner = hn::Mul(linear, hn::MulAdd(hn::Set(d, 3 * 0.044715F), square, one));
  return {value, hn::MulAdd(hn::Mul(value, hn::Sub(one, s)), inner, s)};
}

HWY_INLINE Slope relu(Vec x) {
  const Vec zero = hn::Zero(Floats());
  return {hn::Max(x, zero), hn::IfThenElseZero(hn::Gt(x, zero), hn::Set(Floats(), 1.0F))};
}

template <typename T, typename Act>
HWY_INLINE void gate_with(const GateShape& shape, ConstRows gates, ConstRows ups, MutableRows y_rows,
                          std::int64_t begin, std::int64_t end, const Act& act) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* const inputs[] = {row_of<T>(gates, row), row_of<T>(ups, row)};
    T* const outputs[] = {row_of<T>(y_rows, row)};
    for_each_vector<2, 1>(inputs, outputs, shape.width, [&](const T* const* from, T* const* to, std::int64_t) {
      store(hn::Mul(rounded_as(act(load(from[0])).value, from[0]), load(from[1])), to[0]);
    });
  }
}

template <typename T, typename Act>
HWY_INLINE void gate_with_backward(const GateShape& shape, ConstRows gates, ConstRows ups, ConstRows grads,
                                   MutableRows grad_gates, MutableRows grad_ups, std::int64_t begin, std::int64_t end,
                                   const Act& act) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* const inputs[] = {row_of<T>(gates, row), row_of<T>(ups, row), row_of<T>(grads, row)};
    T* const outputs[] = {row_of<T>(grad_gates, row), row_of<T>(grad_ups, row)};
    for_each_vector<3, 2>(inputs, outputs, shape.width, [&](const T* const* from, T* const* to, std::int64_t) {
      const Slope at_gate = act(load(from[0]));
      const Vec grad = load(from[2]);
      store(hn::Mul(hn::Mul(grad, load(from[1])), at_gate.slope), to[0]);
      store(hn::Mul(grad, at_gate.value), to[1]);
    });
  }
}

// ---- one entry per type and activation -----------------------------------------------------------------------------

template <typename Run>
HWY_INLINE void with_activation(Activation activation, const Run& run) {
  switch (activation) {
    case Activation::kSilu:
      return run([](Vec x) { return silu(x); });
    case Activation::kGeluTanh:
      return run([](Vec x) { return gelu_tanh(x); });
    case Activation::kRelu:
      return run([](Vec x) { return relu(x); });
  }
}

void norm_entry(const NormShape& shape, ConstRows x, const float* weight, MutableRows y, std::int64_t begin,
                std::int64_t end) {
  const auto run = shape.element == Element::kF32 ? rms_norm<float> : rms_norm<std::uint16_t>;
  run(shape, x, weight, y, begin, end);
}

void norm_backward_entry(const NormShape& shape, ConstRows x, const float* weight, ConstRows grad_y, MutableRows grad_x,
                         std::int64_t begin, std::int64_t end) {
  const auto run = shape.element == Element::kF32 ? rms_norm_backward<float> : rms_norm_backward<std::uint16_t>;
  run(shape, x, weight, grad_y, grad_x, begin, end);
}

void rotate_entry(const RotaryShape& shape, ConstRows x, const float* cos, const float* sin, MutableRows y,
                  std::int64_t begin, std::int64_t end) {
  const auto run = shape.element == Element::kF32 ? rotate<float> : rotate<std::uint16_t>;
  run(shape, x, cos, sin, y, begin, end);
}

void gate_entry(const GateShape& shape, ConstRows gate, ConstRows up, MutableRows y, std::int64_t begin,
                std::int64_t end) {
  with_activation(shape.activation, [&](const auto& act) {
    if (shape.element == Element::kF32) return gate_with<float>(shape, gate, up, y, begin, end, act);
    gate_with<std::uint16_t>(shape, gate, up, y, begin, end, act);
  });
}

void gate_backward_entry(const GateShape& shape, ConstRows gate, ConstRows up, ConstRows grad_y, MutableRows grad_gate,
                         MutableRows grad_up, std::int64_t begin, std::int64_t end) {
  with_activation(shape.activation, [&](const auto& act) {
    if (shape.element == Element::kF32) {
      return gate_with_backward<float>(shape, gate, up, grad_y, grad_gate, grad_up, begin, end, act);
    }
    gate_with_backward<std::uint16_t>(shape, gate, up, grad_y, grad_gate, grad_up, begin, end, act);
  });
}

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(norm_entry);
HWY_EXPORT(norm_backward_entry);
HWY_EXPORT(rotate_entry);
HWY_EXPORT(gate_entry);
HWY_EXPORT(gate_backward_entry);

void rms_norm_rows(const NormShape& shape, ConstRows x, const float* weight, MutableRows y, std::int64_t begin,
                   std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(norm_entry)(shape, x, weight, y, begin, end);
}
void rms_norm_rows_backward(const NormShape& shape, ConstRows x, const float* weight, ConstRows grad_y,
                            MutableRows grad_x, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(norm_backward_entry)(shape, x, weight, grad_y, grad_x, begin, end);
}
void rotate_rows(const RotaryShape& shape, ConstRows x, const float* cos, const float* sin, MutableRows y,
                 std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(rotate_entry)(shape, x, cos, sin, y, begin, end);
}
void gate_rows(const GateShape& shape, ConstRows gate, ConstRows up, MutableRows y, std::int64_t begin,
               std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(gate_entry)(shape, gate, up, y, begin, end);
}
void gate_rows_backward(const GateShape& shape, ConstRows gate, ConstRows up, ConstRows grad_y, MutableRows grad_gate,
                        MutableRows grad_up, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(gate_backward_entry)(shape, gate, up, grad_y, grad_gate, grad_up, begin, end);
}

}  // namespace skein
#endif  // HWY_ONCE
