// Reading safetensors: true files, and one test per lie.
#include "skein/io/safetensors.h"

#include <algorithm>

#include "skein/io/fault_env.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::env_with;
using testing::expect_error;
using testing::golden_path;
using testing::little_endian;
using testing::safetensors_bytes;

Result<std::unique_ptr<Checkpoint>> open_bytes(const std::string& bytes, const SafetensorsLimits& limits = {}) {
  return open_safetensors(*env_with("m.safetensors", bytes), "m.safetensors", limits);
}
// A file of one header and so many zero bytes.
Result<std::unique_ptr<Checkpoint>> open_header(const std::string& header, std::size_t data_bytes) {
  return open_bytes(safetensors_bytes(header, std::string(data_bytes, '\0')));
}

TEST(SafetensorsReader, ReadsEveryTypeAsTheReferenceWroteIt) {
  const auto checkpoint = or_throw(open_safetensors(real_env(), golden_path("safetensors/all_types.safetensors")));
  for (const char* name : {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32",
                           "U16", "U8", "BOOL"}) {
    const TensorInfo* info = checkpoint->find(name);
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(dtype_name(info->dtype), name);
    EXPECT_EQ(info->stored_as, name);
    EXPECT_EQ(info->shape, (Shape{2, 3}));
    ASSERT_TRUE(checkpoint->view(name));
    EXPECT_EQ(static_cast<std::int64_t>(checkpoint->view(name)->bytes.size()), 6 * dtype_size(info->dtype));
    if (!is_floating(info->dtype)) continue;
    float values[6];
    or_throw(checkpoint->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
    const float expected[6] = {0, 1, 2, 1, 1, 0};
    EXPECT_TRUE(std::equal(values, values + 6, expected)) << name;
  }
  EXPECT_EQ(checkpoint->find("scalar")->shape, Shape{});
  EXPECT_EQ(checkpoint->find("empty")->shape, (Shape{0, 4}));
  EXPECT_EQ(checkpoint->metadata(),
            (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}, {"note", "by safetensors 0.8.0"}}));
  EXPECT_TRUE(std::is_sorted(checkpoint->tensors().begin(), checkpoint->tensors().end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));
}

TEST(SafetensorsReader, ReadsAnEmptyModel) { EXPECT_TRUE(or_throw(open_header("{}", 0))->tensors().empty()); }

TEST(SafetensorsReader, ReadsPaddedHeaders) {
  EXPECT_EQ(or_throw(open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}    )", 4))->tensors().size(),
            1u);
}

TEST(SafetensorsReader, RefusesToReadIntegersAsFloats) {
  const auto checkpoint = or_throw(open_header(R"({"w":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})", 4));
  float value;
  expect_error(checkpoint->read("w", DType::kF32, std::as_writable_bytes(std::span(&value, 1))),
               "tensor \"w\": elements of type I32 cannot be read as F32");
}

TEST(SafetensorsReader, NamesATensorThatIsNotThere) {
  const auto checkpoint = or_throw(open_header("{}", 0));
  EXPECT_EQ(checkpoint->find("w"), nullptr);
  EXPECT_FALSE(checkpoint->view("w"));
  expect_error(checkpoint->read("w", DType::kF32, {}), "m.safetensors has no tensor \"w\"");
}

// Each lie, the header that tells it, the bytes of data, and what the error says.
TEST(SafetensorsReader, RejectsAMissingFile) {
  expect_error(open_safetensors(*make_memory_env(), "none"), "no such file");
}
TEST(SafetensorsReader, RejectsAnEmptyFile) { expect_error(open_bytes(""), "it has 0 bytes"); }
TEST(SafetensorsReader, RejectsAFileShorterThanItsLength) { expect_error(open_bytes("1234567"), "it has 7 bytes"); }
TEST(SafetensorsReader, RejectsAHeaderLongerThanTheFile) {
  expect_error(open_bytes(little_endian<std::uint64_t>(3) + "{}"),
               "claims 3 bytes; 2 are left in the file; was it cut short?");
}
TEST(SafetensorsReader, RejectsAHeaderOverTheBound) {
  expect_error(open_bytes(little_endian<std::uint64_t>(100'000'001) + "{}"), "at most 100000000 are accepted");
  expect_error(open_bytes(little_endian<std::uint64_t>(~0ULL) + "{}"), "18446744073709551615 bytes; at most");
}
TEST(SafetensorsReader, HoldsAdaptersToSmallerBounds) {
  const std::string padded = "{}" + std::string(8 << 20, ' ');
  EXPECT_TRUE(open_bytes(safetensors_bytes(padded, "")).ok());
  expect_error(open_bytes(safetensors_bytes(padded, ""), adapter_limits()), "at most 8388608 are accepted");
}
TEST(SafetensorsReader, RejectsMoreTensorsThanTheBound) {
  const std::string entry = R"(:{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  const std::string bytes = safetensors_bytes("{\"a\"" + entry + ",\"b\"" + entry + ",\"c\"" + entry + "}", "");
  EXPECT_TRUE(open_bytes(bytes).ok());
  expect_error(open_bytes(bytes, {.max_tensors = 2}), "more than 2 tensors");
}
TEST(SafetensorsReader, RejectsAnEmptyHeader) { expect_error(open_header("", 0), "does not begin with \"{\""); }
TEST(SafetensorsReader, RejectsAHeaderThatIsNoObject) {
  expect_error(open_header("[1]", 0), "does not begin with \"{\"");
}
TEST(SafetensorsReader, RejectsAHeaderThatIsNoJson) { expect_error(open_header("{\"w\":", 0), "not valid JSON"); }
TEST(SafetensorsReader, RejectsAHeaderThatIsNoUtf8) { expect_error(open_header("{\"\xff\":{}}", 0), "not valid JSON"); }
TEST(SafetensorsReader, RejectsADeepHeader) {
  expect_error(open_header("{\"a\":" + std::string(1 << 16, '['), 0), "nested deeper");
}
TEST(SafetensorsReader, RejectsATensorNamedTwice) {
  expect_error(
      open_header(
          R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          8),
      "the key \"w\" stands twice");
}
TEST(SafetensorsReader, RejectsAnEntryThatIsNoObject) {
  expect_error(open_header(R"({"w":[1]})", 0), "tensor \"w\": found array");
}
TEST(SafetensorsReader, RejectsAnEntryWithoutType) {
  expect_error(open_header(R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4), "\"dtype\" is missing");
}
TEST(SafetensorsReader, RejectsAnEntryWithoutShape) {
  expect_error(open_header(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4), "\"shape\" is missing");
}
TEST(SafetensorsReader, RejectsAnEntryWithoutOffsets) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[1]}})", 4), "\"data_offsets\" is missing");
}
TEST(SafetensorsReader, RejectsAnUnknownKey) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}})", 4),
               "unknown key \"strides\"");
}
TEST(SafetensorsReader, RejectsAnUnknownType) {
  expect_error(open_header(R"({"w":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", 4), "element type \"F4\"");
}
TEST(SafetensorsReader, RejectsANegativeExtent) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), "\"shape\" holds -1");
}
TEST(SafetensorsReader, RejectsAFractionInAShape) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4), "\"shape\" holds 1.0");
}
TEST(SafetensorsReader, RejectsAnExtentBeyond63Bits) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4),
               "\"shape\" holds 9223372036854775808");
}
TEST(SafetensorsReader, RejectsAShapeWhoseProductOverflows) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
               "overflows");
}
TEST(SafetensorsReader, RejectsAByteCountThatOverflows) {
  expect_error(open_header(R"({"w":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0),
               "overflows");
}
TEST(SafetensorsReader, RejectsAnOverflowHiddenBehindAZero) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})", 0),
               "overflows");
}
TEST(SafetensorsReader, RejectsOffsetsPastEndOfFile) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4),
               "data ends at byte 8 of 4 in the file; was it cut short?");
}
TEST(SafetensorsReader, RejectsOffsetsThatRunBackwards) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
               "data begins at 4 after its end at 0");
}
TEST(SafetensorsReader, RejectsHugeOffsets) {
  expect_error(
      open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}})", 4),
      "data ends at byte 9223372036854775807");
  expect_error(
      open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}})", 4),
      "\"data_offsets\" holds");
}
TEST(SafetensorsReader, RejectsOneOffset) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4]}})", 4),
               "1 data offsets; two were expected");
}
TEST(SafetensorsReader, RejectsOffsetsThatDisagreeWithTheShape) {
  expect_error(open_header(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
               "F32 of shape (3) needs 12 bytes; its offsets give 8");
}
TEST(SafetensorsReader, RejectsOverlappingTensors) {
  expect_error(
      open_header(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
          12),
      "the bytes of tensor \"b\" overlap");
}
TEST(SafetensorsReader, RejectsTwoTensorsOnTheSameBytes) {
  expect_error(
      open_header(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          4),
      "overlap");
}
TEST(SafetensorsReader, RejectsAHoleBetweenTensors) {
  expect_error(
      open_header(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
          12),
      "4 bytes before tensor \"b\" belong to no tensor");
}
TEST(SafetensorsReader, RejectsBytesAfterTheLastTensor) {
  expect_error(open_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5),
               "1 bytes at the end belong to no tensor");
}
TEST(SafetensorsReader, RejectsMetadataThatIsNoObject) {
  expect_error(open_header(R"({"__metadata__":"pt"})", 0), "__metadata__: found string");
}
TEST(SafetensorsReader, RejectsMetadataThatIsNoText) {
  expect_error(open_header(R"({"__metadata__":{"a":1}})", 0), "\"a\" is number; a string was expected");
}
TEST(SafetensorsReader, EscapesControlCharactersOfNamesInErrors) {
  expect_error(open_header("{\"\\u001b[31m\":{\"dtype\":\"X\",\"shape\":[],\"data_offsets\":[0,4]}}", 4),
               "tensor \"\\x1b[31m\"");
}
TEST(SafetensorsReader, NamesTheWayOutOfAZippedPickle) {
  expect_error(open_safetensors(real_env(), golden_path("torch/state_dict.pt")),
               "torch.save writes, a pickle inside; turn it into safetensors with `skein convert IN OUT`");
}
TEST(SafetensorsReader, NamesTheWayOutOfABarePickle) {
  expect_error(open_safetensors(real_env(), golden_path("torch/legacy.pt")),
               "it is a bare Python pickle, which can run code when loaded");
}
TEST(SafetensorsReader, RecognisesOtherFiles) {
  expect_error(open_bytes("GGUF" + std::string(100, '\0')), "it is a GGUF file");
  expect_error(open_bytes("version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer");
  expect_error(open_bytes("<!DOCTYPE html><html></html>"), "it is a web page");
}
TEST(SafetensorsReader, AHeaderOf640BytesIsNotMistakenForAPickle) {
  // Its length reads 80 02 00 ...: the first bytes of a pickle of protocol 2.
  EXPECT_TRUE(open_header("{}" + std::string(638, ' '), 0).ok());
}
TEST(SafetensorsReader, RejectsEveryTruncation) {
  const std::string whole = testing::golden_bytes("safetensors/all_types.safetensors");
  ASSERT_TRUE(open_bytes(whole).ok());
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(open_bytes(whole.substr(0, size)).ok()) << size;
}
TEST(SafetensorsReader, RejectsAFileThatTheSystemCutsShort) {
  const auto memory = env_with("m", testing::golden_bytes("safetensors/all_types.safetensors"));
  const auto env = make_fault_env(*memory);
  env->set_plan({.short_reads = true});
  expect_error(open_safetensors(*env, "m"), "was it cut short?");
}

}  // namespace
}  // namespace skein
