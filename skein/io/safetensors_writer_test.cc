#include "skein/io/safetensors.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;

TEST(SafetensorsWriter, WritesWhatItReads) {
  const auto golden = or_throw(open_safetensors(real_env(), golden_path("safetensors/all_types.safetensors")));
  std::vector<NamedTensor> tensors;
  for (const auto& info : golden->tensors()) tensors.push_back({info.name, *golden->view(info.name)});
  std::map<std::string, std::string> metadata(golden->metadata().begin(), golden->metadata().end());
  const auto env = make_memory_env();
  or_throw(write_safetensors(*env, "copy", tensors, metadata));
  const auto copy = or_throw(open_safetensors(*env, "copy"));
  EXPECT_EQ(copy->metadata(), golden->metadata());
  ASSERT_EQ(copy->tensors().size(), golden->tensors().size());
  for (const auto& info : golden->tensors()) {
    EXPECT_EQ(copy->find(info.name)->shape, info.shape);
    EXPECT_EQ(copy->find(info.name)->dtype, info.dtype);
    const auto left = copy->view(info.name)->bytes, right = golden->view(info.name)->bytes;
    EXPECT_TRUE(std::equal(left.begin(), left.end(), right.begin(), right.end())) << info.name;
  }
}

TEST(SafetensorsWriter, HasTheBytesThatTheFormatPrescribes) {
  const std::uint8_t bytes[3] = {7, 8, 9};
  const auto env = make_memory_env();
  or_throw(
      write_safetensors(*env, "f", {{"w", {DType::kU8, {3}, std::as_bytes(std::span(bytes))}}}, {{"format", "pt"}}));
  std::string header = R"({"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // data begins at a multiple of 8
  EXPECT_EQ(or_throw(read_text_file(*env, "f")), testing::safetensors_bytes(header, "\x07\x08\x09"));
}

TEST(SafetensorsWriter, TakesBytesInAnyPieces) {
  const auto env = make_memory_env();
  const std::string data = "0123456789abcdef";
  const auto writer =
      or_throw(SafetensorsWriter::create(*env, "f", {{"a", DType::kF32, {3}}, {"b", DType::kU8, {4}}}, {}));
  for (std::size_t at = 0; at < data.size(); at += 5)
    or_throw(writer->append(std::as_bytes(std::span(data).subspan(at, std::min<std::size_t>(5, data.size() - at)))));
  EXPECT_FALSE(env->exists("f"));
  or_throw(writer->finish());
  const auto written = or_throw(open_safetensors(*env, "f"));
  const auto bytes = written->view("b")->bytes;
  EXPECT_EQ(bytes[0], std::byte{'c'});
}

TEST(SafetensorsWriter, RefusesTooFewAndTooManyBytes) {
  const auto env = make_memory_env();
  const auto writer = or_throw(SafetensorsWriter::create(*env, "f", {{"a", DType::kU8, {4}}}, {}));
  or_throw(writer->append(std::as_bytes(std::span("123", 3))));
  expect_error(writer->finish(), "3 of 4 bytes were given");
  expect_error(writer->append(std::as_bytes(std::span("45", 2))), "more bytes than its tensors have");
}

TEST(SafetensorsWriter, RefusesTwoTensorsOfOneName) {
  const auto env = make_memory_env();
  expect_error(SafetensorsWriter::create(*env, "f", {{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}, {}),
               "two tensors are named \"a\"");
  expect_error(SafetensorsWriter::create(*env, "f", {{"__metadata__", DType::kU8, {1}}}, {}),
               "two tensors are named \"__metadata__\"");
}

TEST(SafetensorsWriter, RefusesSizesThatOverflow) {
  const auto env = make_memory_env();
  expect_error(SafetensorsWriter::create(*env, "f", {{"a", DType::kF32, {1LL << 62}}}, {}), "overflows");
  expect_error(
      SafetensorsWriter::create(*env, "f", {{"a", DType::kU8, {1LL << 62}}, {"b", DType::kU8, {1LL << 62}}}, {}),
      "overflows");
}

TEST(SafetensorsWriter, RefusesNamesThatAreNoUtf8) {
  const auto env = make_memory_env();
  expect_error(SafetensorsWriter::create(*env, "f", {{"\xff", DType::kU8, {1}}}, {}), "not valid UTF-8");
}

TEST(SafetensorsWriter, RefusesATensorWhoseBytesDisagreeWithItsShape) {
  const auto env = make_memory_env();
  expect_error(write_safetensors(*env, "f", {{"a", {DType::kF32, {2}, {}}}}), "of shape (2) has 0 bytes");
}

TEST(SafetensorsWriter, WithoutFinishNothingStays) {
  const auto env = make_memory_env();
  (void)or_throw(SafetensorsWriter::create(*env, "f", {{"a", DType::kU8, {4}}}, {}));
  EXPECT_TRUE(or_throw(env->list(".")).empty());
}

}  // namespace
}  // namespace skein
