// Files of torch.save: PyTorch's own, and one test per lie. Zip archives are made by libzip.
#include "skein/io/torch_archive.h"

#include <zip.h>

#include <algorithm>
#include <cstring>

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;
using testing::little_endian;

struct Member {
  std::string name, bytes;
  int method = ZIP_CM_STORE;
};

std::string zip_of(const std::vector<Member>& members) {
  zip_error_t failure;
  zip_source_t* target = zip_source_buffer_create(nullptr, 0, 0, &failure);
  zip_t* zip = zip_open_from_source(target, ZIP_TRUNCATE, &failure);
  zip_source_keep(target);
  for (const auto& member : members) {
    zip_source_t* source = zip_source_buffer(zip, member.bytes.data(), member.bytes.size(), 0);
    const auto index = zip_file_add(zip, member.name.c_str(), source, ZIP_FL_ENC_UTF_8);
    EXPECT_GE(index, 0);
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), member.method, 0);
  }
  EXPECT_EQ(zip_close(zip), 0);
  zip_source_open(target);
  zip_source_seek(target, 0, SEEK_END);
  std::string bytes(static_cast<std::size_t>(zip_source_tell(target)), '\0');
  zip_source_seek(target, 0, SEEK_SET);
  zip_source_read(target, bytes.data(), bytes.size());
  zip_source_close(target);
  zip_source_free(target);
  return bytes;
}

Result<std::unique_ptr<TorchArchive>> open_bytes(const std::string& bytes) {
  return TorchArchive::open(*testing::env_with("t.pt", bytes), "t.pt");
}

std::string text(const std::string& value) {
  return "X" + little_endian(static_cast<std::uint32_t>(value.size())) + value;
}
std::string long_integer(std::int64_t value) { return "\x8a\x08" + little_endian(value); }
std::string integers(const std::vector<std::int64_t>& values) {
  std::string opcodes = "(";
  for (const std::int64_t value : values) opcodes += long_integer(value);
  return opcodes + "t";
}

// What one tensor "w" claims; its storage is data/0.
struct Claim {
  std::int64_t storage_elements = 4, offset = 0;
  std::vector<std::int64_t> shape{2, 2}, strides{2, 1};
  std::string type = "FloatStorage", key = "0";

  std::string opcodes() const {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + type + "\n" + text(key) +
           text("cpu") + long_integer(storage_elements) + "tQ" + long_integer(offset) + integers(shape) +
           integers(strides) + "\x89}tR";
  }
  std::string pickle() const { return "\x80\x02}" + text("w") + opcodes() + "s."; }
};
const std::string kFourFloats = little_endian(1.f) + little_endian(2.f) + little_endian(3.f) + little_endian(4.f);

Result<std::unique_ptr<TorchArchive>> open_claim(const Claim& claim, const std::string& storage = kFourFloats) {
  return open_bytes(zip_of({{"archive/data.pkl", claim.pickle()}, {"archive/data/0", storage}}));
}

TEST(TorchArchive, ReadsTensorsOfEveryKindAsPyTorchWroteThem) {
  const auto archive = or_throw(TorchArchive::open(real_env(), golden_path("torch/state_dict.pt")));
  const auto expected = or_throw(open_safetensors(real_env(), golden_path("torch/expected.safetensors")));
  ASSERT_EQ(archive->tensors().size(), expected->tensors().size());
  for (const auto& [name, view] : archive->tensors()) {
    const auto* info = expected->find(name);
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(view.dtype, info->dtype) << name;
    EXPECT_EQ(view.shape, info->shape) << name;
    const auto bytes = expected->view(name)->bytes;
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), view.bytes.begin(), view.bytes.end())) << name;
  }
}

TEST(TorchArchive, ReadsPlainValuesBesideTensors) {
  const auto archive = or_throw(TorchArchive::open(real_env(), golden_path("torch/lightning.ckpt")));
  ASSERT_EQ(archive->tensors().size(), 2u);
  EXPECT_EQ(archive->tensors()[0].name, "state_dict.model.lora_a");
  const auto* values = archive->root().find("hyper_parameters");
  ASSERT_NE(values, nullptr);
  EXPECT_EQ(*values->find("lora_rank")->get<std::int64_t>(), 1);
  EXPECT_EQ(*values->find("lora_alpha")->get<double>(), 16.0);
  EXPECT_EQ(*values->find("finetune_task_name")->get<std::string>(), "sst2");
  EXPECT_NE(values->find("modify_modules")->get<std::monostate>(), nullptr);
  EXPECT_EQ(*values->find("big")->get<std::int64_t>(), 1LL << 40);
  EXPECT_EQ(*values->find("negative")->get<std::int64_t>(), -3);
  EXPECT_EQ(values->find("long")->get<PickleValue::List>()->size(), 300u);
  EXPECT_EQ(values->find("long_text")->get<std::string>()->size(), 300u);
  EXPECT_EQ(values->find("triple")->get<PickleValue::List>()->size(), 3u);
}

TEST(TorchArchive, ReadsStridedTensorsInRowMajorOrder) {
  Claim transposed;
  transposed.strides = {1, 2};
  const auto archive = or_throw(open_claim(transposed));
  float values[4];
  std::memcpy(values, archive->tensors()[0].tensor.bytes.data(), 16);
  EXPECT_EQ(values[1], 3);
  EXPECT_EQ(values[2], 2);
}

TEST(TorchArchive, RefusesAPickleThatCallsTheSystem) {
  expect_error(TorchArchive::open(real_env(), golden_path("torch/forbidden.pt")), "posix.system is not allowed");
}
TEST(TorchArchive, RefusesTheFormatBeforeZip) {
  expect_error(TorchArchive::open(real_env(), golden_path("torch/legacy.pt")), "format before 1.6");
}
TEST(TorchArchive, RefusesOtherFiles) {
  expect_error(open_bytes(""), "is not a file of torch.save");
  expect_error(open_bytes("GGUF" + std::string(60, '\0')), "is not a file of torch.save: it is a GGUF file");
}
TEST(TorchArchive, RefusesADamagedZip) {
  expect_error(open_bytes("PK\x03\x04" + std::string(100, 'x')), "cannot be read as a zip archive");
}
TEST(TorchArchive, RefusesAZipOfOtherThings) {
  expect_error(open_bytes(zip_of({{"word/document.xml", "<x/>"}})), "no FOLDER/data.pkl");
}
TEST(TorchArchive, RefusesTwoPickles) {
  const std::string pickle = Claim().pickle();
  expect_error(open_bytes(zip_of({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}})), "two members are called data.pkl");
}
TEST(TorchArchive, RefusesCompressedMembers) {
  expect_error(
      open_bytes(zip_of({{"a/data.pkl", Claim().pickle()}, {"a/data/0", std::string(1 << 20, '\0'), ZIP_CM_DEFLATE}})),
      "is compressed or encrypted");
}
TEST(TorchArchive, RefusesBigEndianFiles) {
  expect_error(
      open_bytes(zip_of({{"a/data.pkl", Claim().pickle()}, {"a/byteorder", "big"}, {"a/data/0", kFourFloats}})),
      "its byte order is \"big\"");
}
TEST(TorchArchive, RefusesAMissingStorage) {
  expect_error(open_bytes(zip_of({{"a/data.pkl", Claim().pickle()}})),
               "member \"a/data/0\" of the zip archive is missing");
}
TEST(TorchArchive, RefusesAStorageOfAnotherSize) {
  expect_error(open_claim({}, kFourFloats.substr(0, 12)), "tensor \"w\": its storage of 4 F32 elements has 12 bytes");
  expect_error(open_claim({.type = "DoubleStorage"}), "its storage of 4 F64 elements has 16 bytes");
}
TEST(TorchArchive, RefusesAStorageOfNegativeSize) {
  expect_error(open_claim({.storage_elements = -4}), "its storage of -4 F32 elements");
}
TEST(TorchArchive, RefusesAStorageSizeThatOverflows) {
  expect_error(open_claim({.storage_elements = (1LL << 62) + 4}), "F32 elements has 16 bytes");
}
TEST(TorchArchive, RefusesANegativeOffset) { expect_error(open_claim({.offset = -1}), "its offset is -1"); }
TEST(TorchArchive, RefusesAnOffsetPastTheStorage) {
  expect_error(open_claim({.offset = 1}), "reaches element 4 of a storage of 4");
}
TEST(TorchArchive, RefusesAnOffsetThatWouldWrap) { expect_error(open_claim({.offset = INT64_MAX}), "overflow"); }
TEST(TorchArchive, RefusesNegativeStrides) {
  expect_error(open_claim({.strides = {2, -1}}), "its strides are (2, -1)");
}
TEST(TorchArchive, RefusesStridesPastTheStorage) {
  expect_error(open_claim({.strides = {3, 1}}), "reaches element 4 of a storage of 4");
}
TEST(TorchArchive, RefusesStridesThatOverflow) {
  expect_error(open_claim({.shape = {3, 3}, .strides = {1LL << 62, 1LL << 62}}), "overflow");
}
TEST(TorchArchive, RefusesANegativeExtent) {
  expect_error(open_claim({.shape = {-2, 2}}), "the product of the shape (-2, 2) overflows");
}
TEST(TorchArchive, RefusesAShapeWhoseProductOverflows) {
  expect_error(open_claim({.shape = {1LL << 32, 1LL << 32}, .strides = {0, 0}}), "overflows");
}
TEST(TorchArchive, RefusesToUnfoldOneElementIntoATerabyte) {
  expect_error(open_claim({.shape = {1LL << 19, 1LL << 19}, .strides = {0, 0}}),
               "unfold to more bytes than the file has");
}
TEST(TorchArchive, RefusesToUnfoldManyTensorsIntoMoreThanTheFile) {
  const Claim claim{.storage_elements = 8, .shape = {8, 8}, .strides = {0, 1}};
  EXPECT_TRUE(open_bytes(zip_of({{"a/data.pkl", "\x80\x02]" + claim.opcodes() + "a."},
                                 {"a/data/0", kFourFloats + kFourFloats}}))
                  .ok());
  std::string pickle = "\x80\x02](" + claim.opcodes() + "q\1";
  for (int i = 0; i < 100; ++i) pickle += "h\1";
  expect_error(open_bytes(zip_of({{"a/data.pkl", pickle + "e."}, {"a/data/0", kFourFloats + kFourFloats}})),
               "unfold to more bytes than the file has");
}
TEST(TorchArchive, RefusesAPathAsTheNameOfAStorage) {
  expect_error(open_claim({.key = "../../secret"}),
               "member \"archive/data/../../secret\" of the zip archive is missing");
}
TEST(TorchArchive, RefusesADamagedStorage) {
  std::string bytes = zip_of({{"archive/data.pkl", Claim().pickle()}, {"archive/data/0", kFourFloats}});
  bytes[bytes.find(kFourFloats) + 2] ^= 1;
  expect_error(open_bytes(bytes), "member \"archive/data/0\" of the zip archive is damaged");
}
TEST(TorchArchive, RefusesEveryTruncation) {
  const std::string whole = testing::golden_bytes("torch/lightning.ckpt");
  for (std::size_t size = 0; size < whole.size(); size += 7)
    EXPECT_FALSE(open_bytes(whole.substr(0, size)).ok()) << size;
}
TEST(TorchArchive, RefusesTwoTensorsOfOneName) {
  const std::string opcodes = Claim().opcodes();
  const std::string pickle = "\x80\x02}" + text("a.b") + opcodes + "s" + text("a") + "}" + text("b") + opcodes + "ss.";
  expect_error(open_bytes(zip_of({{"archive/data.pkl", pickle}, {"archive/data/0", kFourFloats}})),
               "two tensors are named \"a.b\"");
}

}  // namespace
}  // namespace skein
