#include "skein/nn/kernels/row_ops.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "skein/base/half.h"
#include "skein/nn/kernels/each_target.h"
#include "skein/nn/kernels/one_query.h"

namespace skein {
namespace {

// An array that the kernels see as f32 or bf16 and the test as doubles.
class Values {
 public:
  Values(std::int64_t count, Element element) : element_(element), floats_(count), bits_(count) {}
  static Values random(std::int64_t count, Element element, int seed, double spread = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, spread);
    Values values(count, element);
    for (std::int64_t i = 0; i < count; ++i) {
      values.bits_[i] = f32_to_bf16(static_cast<float>(normal(random)));
      values.floats_[i] = bf16_to_f32(values.bits_[i]);
    }
    return values;
  }
  double operator[](std::int64_t i) const { return element_ == Element::kF32 ? floats_[i] : bf16_to_f32(bits_[i]); }
  void set(std::int64_t i, double value) {
    floats_[i] = static_cast<float>(value);
    bits_[i] = f32_to_bf16(floats_[i]);
  }
  void* data() { return element_ == Element::kF32 ? static_cast<void*>(floats_.data()) : bits_.data(); }
  ConstRows rows(std::int64_t stride) { return {data(), stride}; }
  MutableRows mutable_rows(std::int64_t stride) { return {data(), stride}; }

 private:
  Element element_;
  std::vector<float> floats_;
  std::vector<std::uint16_t> bits_;
};

// One rounding to the type, and a few of f32 in between relative to `scale`.
double tolerance(Element element, double value, double scale, int roundings = 1) {
  return (element == Element::kF32 ? 0x1p-23 * 8 * scale : roundings * 0x1p-8 * std::abs(value) + 0x1p-20 * scale) +
         1e-30;
}

constexpr Element kElements[] = {Element::kF32, Element::kBf16};

TEST(RowOps, NormsRowsAsTheFormulaSays) {
  on_each_target([] {
    for (const Element element : kElements) {
      for (const std::int64_t width : {1, 10, 16, 40, 67}) {
        for (const bool rounds : {true, false}) {
          Values x = Values::random(3 * (width + 5), element, 1), y(3 * width, element);
          Values weight = Values::random(width, Element::kF32, 2);
          const NormShape shape{element, width, 1e-5F, rounds};
          rms_norm_rows(shape, x.rows(width + 5), static_cast<const float*>(weight.data()), y.mutable_rows(width), 0,
                        3);
          for (std::int64_t row = 0; row < 3; ++row) {
            double square = 0;
            for (std::int64_t i = 0; i < width; ++i) square += std::pow(x[row * (width + 5) + i], 2) / width;
            for (std::int64_t i = 0; i < width; ++i) {
              const double expected = x[row * (width + 5) + i] / std::sqrt(square + 1e-5) * weight[i];
              ASSERT_NEAR(y[row * width + i], expected, tolerance(element, expected, 8, rounds ? 2 : 1)) << width;
            }
          }
        }
      }
    }
  });
}

// d(sum of y * grad)/dx by central differences of the formula in double precision.
template <typename Loss>
double difference(const Loss& loss) {
  const double step = 1e-5;
  return (loss(step) - loss(-step)) / (2 * step);
}

TEST(RowOps, NormGradientEqualsFiniteDifferences) {
  on_each_target([] {
    for (const Element element : kElements) {
      for (const std::int64_t width : {1, 10, 40, 67}) {
        Values x = Values::random(width, element, 3), grad = Values::random(width, element, 4), out(width, element);
        Values weight = Values::random(width, Element::kF32, 5);
        rms_norm_rows_backward({element, width, 1e-3F, false}, x.rows(width), static_cast<const float*>(weight.data()),
                               grad.rows(width), out.mutable_rows(width), 0, 1);
        for (std::int64_t at = 0; at < width; ++at) {
          const double expected = difference([&](double step) {
            double square = 0, loss = 0;
            for (std::int64_t i = 0; i < width; ++i) square += std::pow(x[i] + (i == at ? step : 0), 2) / width;
            for (std::int64_t i = 0; i < width; ++i) {
              loss += (x[i] + (i == at ? step : 0)) / std::sqrt(square + 1e-3) * weight[i] * grad[i];
            }
            return loss;
          });
          // The difference itself is good to 1e-10 / step; the gradient's two terms may cancel.
          ASSERT_NEAR(out[at], expected, tolerance(element, expected, 20) + 2e-5) << width;
        }
      }
    }
  });
}

TEST(RowOps, TurnsHalvesOfEachHeadAndBack) {
  on_each_target([] {
    for (const Element element : kElements) {
      for (const std::int64_t half : {1, 5, 8, 32, 37}) {
        const std::int64_t heads = 3, width = heads * 2 * half;
        Values x = Values::random(2 * width, element, 6), y(2 * width, element), back(2 * width, element);
        std::vector<float> cos, sin;
        for (std::int64_t i = 0; i < 2 * half; ++i) {
          cos.push_back(static_cast<float>(std::cos(0.3 * i)));
          sin.push_back(static_cast<float>(std::sin(0.3 * i)));
        }
        rotate_rows({element, heads, half, false}, x.rows(width), cos.data(), sin.data(), y.mutable_rows(width), 0, 2);
        rotate_rows({element, heads, half, true}, y.rows(width), cos.data(), sin.data(), back.mutable_rows(width), 0,
                    2);
        for (std::int64_t row = 0; row < 2; ++row) {
          for (std::int64_t i = 0; i < heads * half; ++i) {
            const std::int64_t first = row * width + i / half * 2 * half + i % half, angle = row * half + i % half;
            const double a = x[first], b = x[first + half], c = std::cos(0.3 * angle), s = std::sin(0.3 * angle);
            ASSERT_NEAR(y[first], a * c - b * s, tolerance(element, a * c - b * s, 8));
            ASSERT_NEAR(y[first + half], b * c + a * s, tolerance(element, b * c + a * s, 8));
            // Both halves were rounded once on the way.
            const double size = std::abs(a) + std::abs(b);
            ASSERT_NEAR(back[first], a, tolerance(element, size, 8, 2));
            ASSERT_NEAR(back[first + half], b, tolerance(element, size, 8, 2));
          }
        }
      }
    }
  });
}

double act(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
      return x > 0 ? x : 0;
  }
}

TEST(RowOps, GatesAndTheirGradientsFollowTheFormula) {
  on_each_target([] {
    for (const Element element : kElements) {
      for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu}) {
        const std::int64_t width = 83;
        // Spread 6: sigmoids run into 0 and 1.
        Values gate = Values::random(width, element, 8, 6), up = Values::random(width, element, 9);
        Values grad = Values::random(width, element, 10), y(width, element), grad_gate(width, element),
               grad_up(width, element);
        const GateShape shape{element, width, activation};
        gate_rows(shape, gate.rows(width), up.rows(width), y.mutable_rows(width), 0, 1);
        gate_rows_backward(shape, gate.rows(width), up.rows(width), grad.rows(width), grad_gate.mutable_rows(width),
                           grad_up.mutable_rows(width), 0, 1);
        for (std::int64_t i = 0; i < width; ++i) {
          const double value = act(activation, gate[i]), scale = std::abs(gate[i] * up[i]) + 1;
          ASSERT_NEAR(y[i], value * up[i], tolerance(element, value * up[i], scale, 2));
          ASSERT_NEAR(grad_up[i], value * grad[i],
                      tolerance(element, value * grad[i], std::abs(gate[i] * grad[i]) + 1));
          const double slope = difference([&](double step) { return act(activation, gate[i] + step); });
          const double expected = slope * up[i] * grad[i];
          ASSERT_NEAR(grad_gate[i], expected, tolerance(element, expected, 20) + 1e-9) << gate[i];
        }
      }
    }
  });
}

TEST(RowOps, ActivationsOfHugeValuesStayFinite) {
  on_each_target([] {
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      const std::vector<float> gate{-3e4F, -200, -90, 0, 90, 200, 3e4F}, up(7, 1.0F);
      std::vector<float> y(7);
      gate_rows({Element::kF32, 7, activation}, {gate.data(), 7}, {up.data(), 7}, {y.data(), 7}, 0, 1);
      for (int i = 0; i < 7; ++i)
        EXPECT_NEAR(y[i], gate[i] > 0 ? gate[i] : 0, 1e-30 + 1e-6 * std::abs(gate[i])) << gate[i];
    }
  });
}

TEST(RowOps, Bf16RoundsToNearestEvenAndKeepsNan) {
  on_each_target([] {
    // Products through a gate of relu. 1.0078125 * 1.5 and 1.0234375 * 1.5 lie halfway between two bf16 values.
    const std::uint16_t one = f32_to_bf16(1.0F), half_more = f32_to_bf16(1.5F);
    const std::vector<std::uint16_t> gate{one, one, one, 0x3f81, 0x3f83, one};
    const std::vector<std::uint16_t> up{0x7fff, 0x7f80, 0x0001, half_more, half_more, 0xffc1};
    std::vector<std::uint16_t> y(6);
    gate_rows({Element::kBf16, 6, Activation::kRelu}, {gate.data(), 6}, {up.data(), 6}, {y.data(), 6}, 0, 1);
    EXPECT_TRUE(std::isnan(bf16_to_f32(y[0])));
    EXPECT_EQ(y[1], 0x7f80);
    EXPECT_EQ(y[2], 0x0001);
    EXPECT_EQ(bf16_to_f32(y[3]), 194 * 0x1p-7F);
    EXPECT_EQ(bf16_to_f32(y[4]), 196 * 0x1p-7F);
    EXPECT_TRUE(std::isnan(bf16_to_f32(y[5])));
  });
}

TEST(OneQuery, AttendsAsTheFormulaSays) {
  on_each_target([] {
    for (const Element element : kElements) {
      for (const auto& [d_head, keys] : {std::pair<int, int>{10, 1}, {64, 5}, {80, 33}, {256, 17}}) {
        const std::int64_t group = 3, stride = d_head + 7;
        Values q = Values::random(group * d_head, element, 11), k = Values::random(keys * stride, element, 12);
        Values v = Values::random(keys * stride, element, 13), out(group * d_head, element);
        std::vector<float> scratch(group * (keys + d_head));
        const float scale = 0.125F;
        const OneQuery shape{element, group, d_head, keys, stride, stride, scale};
        const void *k_page = k.data(), *v_page = v.data();
        attend_one_query(shape, q.data(), {&k_page, &v_page, keys}, scratch.data(), out.data());
        // The same in pages of four rows, two of which hold earlier keys and the first of which another layer.
        const std::int64_t page_size = 4, first = 9, offset = stride;
        const std::int64_t num_pages = (first + keys + page_size - 1) / page_size;
        std::vector<Values> pages;
        std::vector<const void*> k_pages, v_pages;
        for (const Values* from : {&k, &v}) {
          for (std::int64_t page = 0; page < num_pages; ++page) {
            Values to((page_size + 1) * stride, element);
            for (std::int64_t row = 0; row < page_size; ++row) {
              const std::int64_t key = page * page_size + row - first;
              for (std::int64_t i = 0; key >= 0 && key < keys && i < d_head; ++i) {
                to.set(offset + row * stride + i, (*from)[key * stride + i]);
              }
            }
            pages.push_back(std::move(to));
          }
        }
        for (std::int64_t page = 0; page < num_pages; ++page) {
          k_pages.push_back(pages[page].data());
          v_pages.push_back(pages[num_pages + page].data());
        }
        Values paged(group * d_head, element);
        attend_one_query(shape, q.data(), {k_pages.data(), v_pages.data(), page_size, first, offset}, scratch.data(),
                         paged.data());
        for (std::int64_t i = 0; i < group * d_head; ++i) ASSERT_EQ(paged[i], out[i]) << d_head << " " << keys;
        for (std::int64_t head = 0; head < group; ++head) {
          std::vector<double> weights;
          double sum = 0;
          for (std::int64_t key = 0; key < keys; ++key) {
            double score = 0;
            for (std::int64_t i = 0; i < d_head; ++i) score += q[head * d_head + i] * k[key * stride + i] * scale;
            weights.push_back(std::exp(score));
            sum += weights.back();
          }
          for (std::int64_t i = 0; i < d_head; ++i) {
            double expected = 0;
            for (std::int64_t key = 0; key < keys; ++key) expected += weights[key] / sum * v[key * stride + i];
            // A score of size 16 is good to 1e-6; so are the weights, relatively.
            ASSERT_NEAR(out[head * d_head + i], expected, tolerance(element, expected, 8) + 2e-5)
                << d_head << " " << keys;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace skein
