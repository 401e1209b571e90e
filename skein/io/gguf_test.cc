// Reading GGUF: true files, and one test per lie.
#include "skein/io/gguf.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;
using testing::little_endian;

std::string u32(std::uint32_t value) { return little_endian(value); }
std::string u64(std::uint64_t value) { return little_endian(value); }
std::string text(const std::string& value) { return u64(value.size()) + value; }

// Parts of a file, put together by bytes(); each lie changes one.
struct GgufBytes {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t tensor_count = 0;
  std::uint64_t pair_count = 0;
  std::string pairs, tensors, data;
  std::size_t alignment = 32;

  GgufBytes& pair(const std::string& key, std::uint32_t kind, const std::string& value) {
    ++pair_count;
    pairs += text(key) + u32(kind) + value;
    return *this;
  }
  GgufBytes& tensor(const std::string& name, std::vector<std::uint64_t> extents, std::uint32_t type,
                    std::uint64_t offset) {
    ++tensor_count;
    tensors += text(name) + u32(static_cast<std::uint32_t>(extents.size()));
    for (const std::uint64_t extent : extents) tensors += u64(extent);
    tensors += u32(type) + u64(offset);
    return *this;
  }
  GgufBytes& zeros(std::size_t count) {
    data.append(count, '\0');
    return *this;
  }
  std::string bytes() const {
    std::string all = magic + u32(version) + u64(tensor_count) + u64(pair_count) + pairs + tensors;
    if (!data.empty()) all.resize((all.size() + alignment - 1) / alignment * alignment);
    return all + data;
  }
};

Result<std::unique_ptr<GgufFile>> open_bytes(const std::string& bytes) {
  return GgufFile::open(*testing::env_with("m.gguf", bytes), "m.gguf");
}
Result<std::unique_ptr<GgufFile>> open_bytes(const GgufBytes& file) { return open_bytes(file.bytes()); }

TEST(GgufReader, ReadsMetadataOfEveryKindAsTheReferenceWroteIt) {
  const auto file = or_throw(GgufFile::open(real_env(), golden_path("gguf/quants.gguf")));
  EXPECT_EQ(or_throw(file->text("general.architecture")), "llama");
  EXPECT_EQ(or_throw(file->integer("test.uint8")), 255);
  EXPECT_EQ(or_throw(file->integer("test.int8")), -128);
  EXPECT_EQ(or_throw(file->integer("test.uint16")), 65535);
  EXPECT_EQ(or_throw(file->integer("test.int16")), -32768);
  EXPECT_EQ(or_throw(file->integer("test.uint32")), 4294967295);
  EXPECT_EQ(or_throw(file->integer("test.int32")), -2147483648LL);
  EXPECT_EQ(std::get<std::uint64_t>(*file->find("test.uint64")), ~0ULL);
  EXPECT_EQ(or_throw(file->integer("test.int64")), INT64_MIN);
  EXPECT_EQ(or_throw(file->number("test.float32")), 0.5);
  EXPECT_EQ(or_throw(file->number("test.float64")), 1e-300);
  EXPECT_EQ(or_throw(file->number("test.int8")), -128.0);
  EXPECT_TRUE(std::get<bool>(*file->find("test.bool")));
  EXPECT_EQ(or_throw(file->text("test.string")), "na\u00efve \U0001f9f6");
  EXPECT_EQ(std::get<std::vector<std::string_view>>(*file->find("test.strings")),
            (std::vector<std::string_view>{"a", "", "\u00df"}));
  EXPECT_EQ(std::get<std::vector<std::int64_t>>(*file->find("test.integers")), (std::vector<std::int64_t>{1, -2, 3}));
  EXPECT_EQ(std::get<std::vector<double>>(*file->find("test.numbers")), (std::vector<double>{0.25, -1.5}));
  EXPECT_EQ(std::get<std::vector<bool>>(*file->find("test.flags")), (std::vector<bool>{true, false, true}));
}

TEST(GgufReader, GivesTensorsInFileOrderWithRowMajorShapes) {
  const auto file = or_throw(GgufFile::open(real_env(), golden_path("gguf/quants.gguf")));
  EXPECT_EQ(file->tensors().front().name, "F16");
  const auto* tensor = file->find_tensor("Q6_K");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape, (Shape{3, 512}));
  EXPECT_EQ(tensor->type, GgmlType::kQ6_K);
  EXPECT_EQ(tensor->bytes.size(), 3u * 2 * 210);
  EXPECT_EQ(file->find_tensor("none"), nullptr);
}

TEST(GgufReader, ReadsVersionTwo) {
  GgufBytes file;
  file.version = 2;
  EXPECT_TRUE(open_bytes(file.tensor("w", {2}, 0, 0).zeros(8)).ok());
}

TEST(GgufReader, HonoursTheFilesOwnAlignment) {
  GgufBytes file;
  file.alignment = 64;
  file.pair("general.alignment", 4, u32(64)).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 64).zeros(68);
  file.data[64] = 1;
  const auto opened = or_throw(open_bytes(file));
  EXPECT_EQ(opened->find_tensor("b")->bytes[0], std::byte{1});
}

TEST(GgufReader, LookUpsNameTheKeyAndWhatWasExpected) {
  const auto file =
      or_throw(open_bytes(GgufBytes().pair("s", 8, text("x")).pair("big", 10, u64(~0ULL)).pair("f", 6, u32(0))));
  EXPECT_EQ(or_throw(file->integer("none", 5)), 5);
  expect_error(file->integer("none"), "m.gguf: the key \"none\" is missing");
  expect_error(file->integer("s", 5), "\"s\" is a string; an integer below 2^63 was expected");
  expect_error(file->integer("big"), "\"big\" is an unsigned integer; an integer below 2^63 was expected");
  expect_error(file->integer("f"), "\"f\" is a number; an integer");
  expect_error(file->number("s"), "\"s\" is a string; a number was expected");
  expect_error(file->text("f"), "\"f\" is a number; a string was expected");
}

TEST(GgufReader, RejectsAnEmptyFile) { expect_error(open_bytes(""), "not a GGUF file"); }
TEST(GgufReader, RejectsAnotherMagic) {
  expect_error(open_bytes(std::string(64, 'x')), "does not begin with \"GGUF\"");
}
TEST(GgufReader, NamesTheWayOutOfAPickle) {
  expect_error(open_bytes("PK\x03\x04" + std::string(64, 'x')), "skein convert");
}
TEST(GgufReader, RejectsVersionOne) {
  GgufBytes file;
  file.version = 1;
  expect_error(open_bytes(file), "GGUF version 1; 2 or 3 was expected");
}
TEST(GgufReader, RecognisesBigEndianFiles) {
  GgufBytes file;
  file.version = 0x03000000;
  expect_error(open_bytes(file), "it is a big-endian file");
}
TEST(GgufReader, RejectsAFileThatEndsInItsHeader) {
  expect_error(open_bytes(GgufBytes().bytes().substr(0, 20)), "its header runs past the end");
}
TEST(GgufReader, RejectsMoreTensorsThanTheFileCanHold) {
  GgufBytes file;
  file.tensor_count = ~0ULL;
  expect_error(open_bytes(file), "claims 18446744073709551615 tensors");
}
TEST(GgufReader, RejectsMoreMetadataThanTheFileCanHold) {
  GgufBytes file;
  file.pair_count = 1ULL << 60;
  expect_error(open_bytes(file), "metadata entries, more than its size allows");
}
TEST(GgufReader, RejectsOneTensorTooMany) {
  GgufBytes file;
  file.tensor("a", {1}, 0, 0).zeros(64);
  ++file.tensor_count;
  EXPECT_FALSE(open_bytes(file).ok());
}
TEST(GgufReader, RejectsAKeyLongerThanTheFormatAllows) {
  expect_error(open_bytes(GgufBytes().pair(std::string(65536, 'k'), 7, "\1")), "claims 65536 bytes; at most 65535");
}
TEST(GgufReader, RejectsAKeyPastTheEnd) {
  GgufBytes file;
  file.pair_count = 1;
  file.pairs = u64(1000) + std::string(32, 'k');
  expect_error(open_bytes(file), "the key of metadata entry 0 runs past the end");
}
TEST(GgufReader, RejectsAnEmptyKey) {
  expect_error(open_bytes(GgufBytes().pair("", 7, "\1")), "the key of metadata entry 0 is empty");
}
TEST(GgufReader, RejectsAKeyThatStandsTwice) {
  expect_error(open_bytes(GgufBytes().pair("k", 7, "\1").pair("k", 7, "\1")), "the key \"k\" stands twice");
}
TEST(GgufReader, RejectsAnUndefinedKind) {
  expect_error(open_bytes(GgufBytes().pair("k", 13, u64(0))), "\"k\" is of kind 13");
}
TEST(GgufReader, RejectsAValuePastTheEnd) {
  expect_error(open_bytes(GgufBytes().pair("key", 10, "\1")), "\"key\" runs past the end");
}
TEST(GgufReader, RejectsABooleanThatIsNeither) {
  expect_error(open_bytes(GgufBytes().pair("key", 7, "\2")), "holds the boolean 2");
}
TEST(GgufReader, RejectsAStringPastTheEnd) {
  expect_error(open_bytes(GgufBytes().pair("k", 8, u64(9) + "12345678")), "\"k\" runs past the end");
}
TEST(GgufReader, RejectsAStringOfAllTheMemoryThereIs) {
  expect_error(open_bytes(GgufBytes().pair("k", 8, u64(~0ULL) + "1")), "\"k\" runs past the end");
}
TEST(GgufReader, RejectsAListPastTheEnd) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(10) + u64(3) + u64(1) + u64(2))), "\"k\" claims 3 elements");
}
TEST(GgufReader, RejectsAListOfAllTheMemoryThereIs) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(0) + u64(~0ULL))), "claims 18446744073709551615 elements");
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(8) + u64(1ULL << 61))),
               "elements, more than the file's size allows");
}
TEST(GgufReader, RejectsListsThatWouldWidenToGigabytes) {
  const std::string list = u32(0) + u64(17 << 20) + std::string(17 << 20, 'x');
  expect_error(open_bytes(GgufBytes().pair("a", 9, list).pair("b", 9, list)), "\"b\" brings its lists to over");
}
TEST(GgufReader, RejectsAListOfLists) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(9) + u64(1) + u32(9) + u64(1))), "\"k\" is a list of lists");
}
TEST(GgufReader, RejectsAListOfAnUndefinedKind) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(99) + u64(0))), "a list of kind 99");
}
TEST(GgufReader, RejectsAStringInAListPastTheEnd) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(8) + u64(2) + text("a") + u64(100) + "b")),
               "string 1 of \"k\" runs past the end");
}
TEST(GgufReader, RejectsABooleanInAListThatIsNeither) {
  expect_error(open_bytes(GgufBytes().pair("k", 9, u32(7) + u64(2) + "\1\3")), "holds the boolean 3");
}
TEST(GgufReader, RejectsAnAlignmentThatIsNoPowerOfTwo) {
  expect_error(open_bytes(GgufBytes().pair("general.alignment", 4, u32(48))),
               "\"general.alignment\" is 48; a power of two");
  expect_error(open_bytes(GgufBytes().pair("general.alignment", 4, u32(0))), "is 0");
  expect_error(open_bytes(GgufBytes().pair("general.alignment", 4, u32(1U << 31))), "is 2147483648");
  expect_error(open_bytes(GgufBytes().pair("general.alignment", 5, u32(~0U))), "is -1");
  expect_error(open_bytes(GgufBytes().pair("general.alignment", 8, text("32"))), "is a string");
}
TEST(GgufReader, RejectsOnePartOfASplitFile) {
  expect_error(open_bytes(GgufBytes().pair("split.count", 2, std::string("\3\0", 2))), "one of 3 parts");
}
TEST(GgufReader, RejectsATensorNamedTwice) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1}, 0, 0).tensor("w", {1}, 0, 32).zeros(64)),
               "tensor \"w\" stands twice");
}
TEST(GgufReader, RejectsATensorWithoutName) {
  expect_error(open_bytes(GgufBytes().tensor("", {1}, 0, 0).zeros(64)), "the name of tensor 0 is empty");
}
TEST(GgufReader, RejectsALongTensorName) {
  expect_error(open_bytes(GgufBytes().tensor(std::string(1025, 'w'), {1}, 0, 0).zeros(64)),
               "claims 1025 bytes; at most 1024");
}
TEST(GgufReader, RejectsATensorWithoutDimensions) {
  expect_error(open_bytes(GgufBytes().tensor("w", {}, 0, 0).zeros(64)), "tensor \"w\" has 0 dimensions");
}
TEST(GgufReader, RejectsFiveDimensions) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1, 1, 1, 1, 1}, 0, 0).zeros(64)), "has 5 dimensions; 1 to 4");
}
TEST(GgufReader, RejectsAnExtentOfZero) {
  expect_error(open_bytes(GgufBytes().tensor("w", {0}, 0, 0).zeros(64)), "has an extent of 0");
}
TEST(GgufReader, RejectsAnExtentBeyond63Bits) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1ULL << 63}, 0, 0).zeros(64)),
               "has an extent of 9223372036854775808");
}
TEST(GgufReader, RejectsAShapeWhoseProductOverflows) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1ULL << 32, 1ULL << 32}, 0, 0).zeros(64)), "overflows");
}
TEST(GgufReader, RejectsAByteCountThatOverflows) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1ULL << 61, 2}, 0, 0).zeros(64)), "overflows");
}
TEST(GgufReader, RejectsRowsThatAreNoWholeBlocks) {
  expect_error(open_bytes(GgufBytes().tensor("w", {48, 2}, 2, 0).zeros(64)),
               "rows of 48 elements; Q4_0 needs a multiple of 32");
  expect_error(open_bytes(GgufBytes().tensor("w", {128, 2}, 12, 0).zeros(200)), "Q4_K needs a multiple of 256");
}
TEST(GgufReader, RejectsATypeThatIsNotRead) {
  expect_error(open_bytes(GgufBytes().tensor("w", {256}, 23, 0).zeros(256)),
               "tensor \"w\" is stored as IQ4_XS (type 23)");
  expect_error(open_bytes(GgufBytes().tensor("w", {256}, 4242, 0).zeros(256)), "is stored as unknown (type 4242)");
}
TEST(GgufReader, RejectsAnOffsetThatIsNotAligned) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1}, 0, 4).zeros(64)),
               "begins at offset 4, no multiple of the alignment 32");
}
TEST(GgufReader, RejectsATensorPastTheEnd) {
  expect_error(open_bytes(GgufBytes().tensor("w", {9}, 0, 32).zeros(64)),
               "tensor \"w\" has 36 bytes at offset 32; the data section has 64; was the file cut short?");
}
TEST(GgufReader, RejectsAnOffsetThatWouldWrap) {
  expect_error(open_bytes(GgufBytes().tensor("w", {8}, 0, ~0ULL - 31).zeros(64)),
               "has 32 bytes at offset 18446744073709551584");
}
TEST(GgufReader, RejectsTensorsWithoutDataSection) {
  expect_error(open_bytes(GgufBytes().tensor("w", {1}, 0, 0)), "the data section has 0");
}
TEST(GgufReader, RejectsOverlappingTensors) {
  expect_error(open_bytes(GgufBytes().tensor("a", {16}, 0, 0).tensor("b", {8}, 0, 32).zeros(64)),
               "the bytes of tensor \"b\" overlap");
}
TEST(GgufReader, RejectsAHundredMillionTensorsInATinyFile) {
  GgufBytes file;
  file.tensor_count = 100'000'000;
  file.tensors = std::string(1000, '\0');
  expect_error(open_bytes(file), "more than its size allows");
}
TEST(GgufReader, RejectsEveryTruncation) {
  GgufBytes file;
  file.pair("a", 9, u32(8) + u64(2) + text("x") + text("y"))
      .pair("b", 4, u32(7))
      .tensor("w", {32}, 8, 0)
      .tensor("v", {4}, 0, 64)
      .zeros(80);
  const std::string whole = file.bytes();
  ASSERT_TRUE(open_bytes(whole).ok());
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(open_bytes(whole.substr(0, size)).ok()) << size;
}

}  // namespace
}  // namespace skein
