#include "skein/io/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "skein/io/fault_env.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

std::vector<std::byte> bytes_of(const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

TEST(GgufWriter, IsReadBackByTheReader) {
  const auto env = make_memory_env();
  GgufMetadata metadata;
  metadata.add_text("general.architecture", "llama");
  metadata.add_integer("n", 7);
  metadata.add_number("x", 0.5F);
  metadata.add_flag("yes", true);
  metadata.add_texts("words", std::vector<std::string>{"a", "", "\u00df"});
  metadata.add_integers("types", std::vector<std::int32_t>{-1, 2});
  metadata.add_numbers("scores", std::vector<float>{1.5F});
  const std::vector<float> odd = {1, 2, 3}, matrix = {1, 2, 3, 4, 5, 6};
  auto writer = or_throw(
      GgufWriter::create(*env, "m.gguf", metadata, {{"odd", GgmlType::kF32, {3}}, {"matrix", GgmlType::kF32, {3, 2}}}));
  or_throw(writer->append(bytes_of(odd)));
  EXPECT_FALSE(env->exists("m.gguf"));
  or_throw(writer->append(bytes_of(matrix)));
  or_throw(writer->finish());

  const auto file = or_throw(GgufFile::open(*env, "m.gguf"));
  EXPECT_EQ(or_throw(file->text("general.architecture")), "llama");
  EXPECT_EQ(or_throw(file->integer("n")), 7);
  EXPECT_EQ(or_throw(file->number("x")), 0.5);
  EXPECT_TRUE(std::get<bool>(*file->find("yes")));
  EXPECT_EQ(std::get<std::vector<std::string_view>>(*file->find("words")),
            (std::vector<std::string_view>{"a", "", "\u00df"}));
  EXPECT_EQ(std::get<std::vector<std::int64_t>>(*file->find("types")), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(std::get<std::vector<double>>(*file->find("scores")), std::vector<double>{1.5});
  ASSERT_EQ(file->tensors().size(), 2u);
  const GgufTensor* found = file->find_tensor("matrix");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->shape, (Shape{3, 2}));
  EXPECT_EQ(std::vector<std::byte>(found->bytes.begin(), found->bytes.end()), bytes_of(matrix));
}

TEST(GgufWriter, RefusesBytesThatAreNotThePlans) {
  const auto env = make_memory_env();
  auto writer = or_throw(GgufWriter::create(*env, "m.gguf", {}, {{"a", GgmlType::kF32, {2}}}));
  testing::expect_error(writer->append(bytes_of({1, 2, 3})), "was given 12 bytes");
  testing::expect_error(writer->finish(), "0 of 1 tensors were given");
  EXPECT_FALSE(env->exists("m.gguf"));
  testing::expect_error(GgufWriter::create(*env, "m.gguf", {}, {{"a", GgmlType::kQ8_0, {2, 33}}}),
                        "rows of whole blocks of 32");
}

// A block's values come back within half a step d / 2 of it, plus d's own rounding to f16 (2^-11 of 127 steps).
TEST(QuantizeQ8, ComesBackWithinHalfAStep) {
  std::vector<float> values(96);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * (i < 32 ? 0.1F : 3);
  std::fill(values.begin() + 64, values.end(), 0.0F);
  std::vector<std::byte> blocks(3 * 34);
  ASSERT_TRUE(quantize_q8_0(values.data(), 96, blocks.data()));
  std::vector<float> back(96);
  dequantize_rows(GgufTensor{"t", GgmlType::kQ8_0, {96}, blocks}, 0, 1, back.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float step = (i < 32 ? 0.1F : 3) / 127;
    EXPECT_NEAR(back[i], values[i], i < 64 ? step * (0.5F + 127 / 2048.0F) : 0) << i;
  }
  values[40] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(quantize_q8_0(values.data(), 96, blocks.data()));
}

}  // namespace
}  // namespace skein
