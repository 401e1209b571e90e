#include "skein/io/convert_elements.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "skein/base/half.h"
#include "skein/io/safetensors.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;

// The bits of NaNs may differ from PyTorch's; that they are NaNs may not.
bool same_16_bits(DType dtype, std::uint16_t a, std::uint16_t b) {
  const std::uint16_t infinity = dtype == DType::kBF16 ? 0x7f80 : 0x7c00;
  const bool nan_a = (a & 0x7fff) > infinity, nan_b = (b & 0x7fff) > infinity;
  return nan_a || nan_b ? nan_a == nan_b : a == b;
}

// Element i of a view, as bits.
template <typename T>
T element(const TensorView& view, std::size_t i) {
  T value;
  std::memcpy(&value, view.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

TEST(ConvertElements, RoundsAsPyTorchDoes) {
  const auto golden = or_throw(open_safetensors(real_env(), testing::golden_path("safetensors/floats.safetensors")));
  int compared = 0;
  for (const auto& info : golden->tensors()) {
    const std::size_t dot = info.name.find(".as_");
    if (dot == std::string::npos) continue;
    const std::string source = info.name.substr(0, dot);
    const TensorView expected = *golden->view(info.name);
    std::vector<std::byte> converted(expected.bytes.size());
    or_throw(golden->read(source, expected.dtype, converted));
    const TensorView got{expected.dtype, expected.shape, converted};
    for (std::size_t i = 0; i < static_cast<std::size_t>(expected.shape[0]); ++i) {
      ++compared;
      if (expected.dtype == DType::kF32) {
        const auto a = element<float>(got, i), b = element<float>(expected, i);
        EXPECT_TRUE(std::isnan(a) ? std::isnan(b) : std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b))
            << info.name << "[" << i << "]: " << a << ", expected " << b;
      } else {
        EXPECT_TRUE(same_16_bits(expected.dtype, element<std::uint16_t>(got, i), element<std::uint16_t>(expected, i)))
            << info.name << "[" << i << "]: " << element<std::uint16_t>(got, i) << ", expected "
            << element<std::uint16_t>(expected, i);
      }
    }
  }
  EXPECT_GT(compared, 30000);
}

TEST(ConvertElements, ReadsAndWritesAtAnyAddress) {
  std::vector<std::byte> from(1 + 2 * 1000), out(3 + 4 * 1000), aligned(4 * 1000);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 37 % 120);
  convert_to_f32(DType::kF16, from.data() + 1, 1000, reinterpret_cast<float*>(aligned.data()));
  const TensorView view{DType::kF16, {1000}, std::span(from).subspan(1)};
  or_throw(convert_elements(view, DType::kF32, std::span(out).subspan(3)));
  EXPECT_TRUE(std::equal(aligned.begin(), aligned.end(), out.begin() + 3));
}

TEST(ConvertElements, CopiesItsOwnType) {
  const std::int64_t values[3] = {1, -2, 3};
  std::int64_t copy[3];
  or_throw(convert_elements({DType::kI64, {3}, std::as_bytes(std::span(values))}, DType::kI64,
                            std::as_writable_bytes(std::span(copy))));
  EXPECT_EQ(copy[1], -2);
}

TEST(ConvertElements, LargeTensorsAreSplitWithoutSeams) {
  std::vector<float> values(300'001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.37f;
  std::vector<std::uint16_t> out(values.size());
  or_throw(convert_elements({DType::kF32, {300'001}, std::as_bytes(std::span(values))}, DType::kBF16,
                            std::as_writable_bytes(std::span(out))));
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(out[i], f32_to_bf16(values[i])) << i;
}

TEST(ConvertElements, RefusesIntegersAndStrangeTargets) {
  const std::int32_t one = 1;
  float out;
  const TensorView view{DType::kI32, {1}, std::as_bytes(std::span(&one, 1))};
  expect_error(convert_elements(view, DType::kF32, std::as_writable_bytes(std::span(&out, 1))),
               "I32 cannot be read as F32");
  const TensorView floats{DType::kF32, {1}, std::as_bytes(std::span(&one, 1))};
  expect_error(convert_elements(floats, DType::kF64, std::as_writable_bytes(std::span(&out, 1))),
               "F32 cannot be read as F64");
}

}  // namespace
}  // namespace skein
