#include <bit>
#include <cstring>

#include "skein/base/half.h"
#include "skein/io/gguf.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

class DequantizeTest : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Types, DequantizeTest,
                         ::testing::Values("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K",
                                           "Q6_K"),
                         [](const auto& info) { return std::string(info.param); });

// Bit for bit: the same products and sums in f32, in the same order, so there is nothing to tolerate.
TEST_P(DequantizeTest, EqualsTheReferenceBitForBit) {
  const auto file = or_throw(GgufFile::open(real_env(), testing::golden_path("gguf/quants.gguf")));
  const auto* tensor = file->find_tensor(GetParam());
  const auto* expected = file->find_tensor(std::string(GetParam()) + ".expected");
  ASSERT_TRUE(tensor != nullptr && expected != nullptr);
  ASSERT_EQ(ggml_type_name(tensor->type), GetParam());
  std::vector<float> got(3 * 512);
  dequantize_rows(*tensor, 0, 3, got.data());
  for (std::size_t i = 0; i < got.size(); ++i) {
    float want;
    std::memcpy(&want, expected->bytes.data() + 4 * i, 4);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want))
        << "element " << i << ": " << got[i] << ", expected " << want;
  }
}

TEST_P(DequantizeTest, RowsApartEqualRowsTogether) {
  const auto file = or_throw(GgufFile::open(real_env(), testing::golden_path("gguf/quants.gguf")));
  const auto* tensor = file->find_tensor(GetParam());
  std::vector<float> whole(3 * 512), row(512);
  dequantize_rows(*tensor, 0, 3, whole.data());
  dequantize_rows(*tensor, 1, 2, row.data());
  EXPECT_EQ(std::memcmp(row.data(), whole.data() + 512, 512 * 4), 0);
}

TEST(Dequantize, CopiesFloats) {
  const float values[4] = {1, 2, 3, 4};
  const GgufTensor tensor{"w", GgmlType::kF32, {4}, std::as_bytes(std::span(values))};
  float out[4];
  dequantize_rows(tensor, 0, 1, out);  // one dimension is one row
  EXPECT_EQ(out[3], 4);
}

// ggml's formulas for one element, written out from its block layouts; the fast loops must agree on every element.
TEST(Dequantize, Q4KAgreesWithTheFormulaElementByElement) {
  const auto file = or_throw(GgufFile::open(real_env(), testing::golden_path("gguf/quants.gguf")));
  const auto* tensor = file->find_tensor("Q4_K");
  std::vector<float> got(512);
  dequantize_rows(*tensor, 1, 2, got.data());
  const auto* raw = reinterpret_cast<const std::uint8_t*>(tensor->bytes.data()) + 2 * 144;
  for (int element = 0; element < 512; ++element) {
    const std::uint8_t* block = raw + element / 256 * 144;
    const int in_block = element % 256, group = in_block / 32;
    std::uint16_t halves[2];
    std::memcpy(halves, block, 4);
    const auto packed = [&](int i) { return int{block[4 + i]}; };
    const int scale = group < 4 ? packed(group) & 63 : (packed(group + 4) & 15) | (packed(group - 4) >> 6) << 4;
    const int minimum = group < 4 ? packed(group + 4) & 63 : (packed(group + 4) >> 4) | (packed(group) >> 6) << 4;
    const int byte = block[16 + group / 2 * 32 + in_block % 32];
    const int q = group % 2 == 0 ? byte & 15 : byte >> 4;
    const auto d = f16_to_f32(halves[0]);
    const auto d_min = f16_to_f32(halves[1]);
    const float step = d * static_cast<float>(scale), base = d_min * static_cast<float>(minimum);
    ASSERT_EQ(got[static_cast<std::size_t>(element)], step * static_cast<float>(q) - base) << element;
  }
}

}  // namespace
}  // namespace skein
