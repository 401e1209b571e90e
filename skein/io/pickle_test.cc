// The pickle machine: what torch.save writes, and one test per lie. Pickles are spelt opcode by opcode.
#include "skein/io/pickle.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::little_endian;

const std::string kProto("\x80\x02", 2);

Result<PickleValue> parse(const std::string& opcodes) {
  return parse_pickle(std::as_bytes(std::span(opcodes)), "t.pt");
}
Result<PickleValue> run(const std::string& opcodes) { return parse(kProto + opcodes + "."); }

std::string text(const std::string& value) {
  return "X" + little_endian(static_cast<std::uint32_t>(value.size())) + value;
}
std::string integer(std::int32_t value) { return "J" + little_endian(value); }
std::string global(const std::string& module, const std::string& name) { return "c" + module + "\n" + name + "\n"; }
std::string storage(const std::string& type = "FloatStorage", std::int32_t elements = 4) {
  return "(" + text("storage") + global("torch", type) + text("0") + text("cpu") + integer(elements) + "tQ";
}
std::string tensor(const std::string& storage_opcodes, const std::string& shape, const std::string& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage_opcodes + integer(0) + shape + strides + "\x89" +
         global("collections", "OrderedDict") + ")RtR";
}

TEST(Pickle, ReadsPlainValues) {
  EXPECT_NE(or_throw(run("N")).get<std::monostate>(), nullptr);
  EXPECT_TRUE(*or_throw(run("\x88")).get<bool>());
  EXPECT_FALSE(*or_throw(run("\x89")).get<bool>());
  EXPECT_EQ(*or_throw(run("K\xff")).get<std::int64_t>(), 255);
  EXPECT_EQ(*or_throw(run("M\xff\xff")).get<std::int64_t>(), 65535);
  EXPECT_EQ(*or_throw(run(integer(-2))).get<std::int64_t>(), -2);
  EXPECT_EQ(*or_throw(run(std::string("\x8a\x01\xfe", 3))).get<std::int64_t>(), -2);
  EXPECT_EQ(*or_throw(run(std::string("\x8a\x02\xff\x00", 4))).get<std::int64_t>(), 255);
  EXPECT_EQ(*or_throw(run(std::string("\x8a\x00", 2))).get<std::int64_t>(), 0);
  EXPECT_EQ(*or_throw(run("\x8a\x08" + little_endian(INT64_MIN))).get<std::int64_t>(), INT64_MIN);
  EXPECT_EQ(*or_throw(run(std::string("G\x3f\xf8\0\0\0\0\0\0", 9))).get<double>(), 1.5);
  EXPECT_EQ(*or_throw(run(text("na\u00efve"))).get<std::string>(), "na\u00efve");
}

TEST(Pickle, ReadsContainers) {
  const auto list = or_throw(run("](K\1K\2eK\3a"));
  ASSERT_EQ(list.get<PickleValue::List>()->size(), 3u);
  EXPECT_EQ(*(*list.get<PickleValue::List>())[2].get<std::int64_t>(), 3);
  const auto dict = or_throw(run("}(" + text("a") + "K\1" + text("b") + "K\2u" + text("a") + "K\3s"));
  EXPECT_EQ(*dict.find("b")->get<std::int64_t>(), 2);
  EXPECT_EQ(*dict.find("a")->get<std::int64_t>(), 3);  // the last one counts, as in Python
  EXPECT_EQ(dict.find("c"), nullptr);
  EXPECT_EQ(list.find("a"), nullptr);
  EXPECT_EQ(or_throw(run("K\1K\2K\3\x87")).get<PickleValue::List>()->size(), 3u);
  EXPECT_EQ(or_throw(run(")")).get<PickleValue::List>()->size(), 0u);
}

TEST(Pickle, RemembersValues) {
  const auto list = or_throw(run("]q\1(" + text("x") + "q\2h\2h\2e"));
  EXPECT_EQ(*(*list.get<PickleValue::List>())[2].get<std::string>(), "x");
}

TEST(Pickle, ReadsProtocolFour) {
  // FRAME, MEMOIZE, STACK_GLOBAL and short strings.
  const std::string frame = "\x95" + little_endian<std::uint64_t>(50);
  const std::string name =
      std::string("\x8c\x0b", 2) + "collections\x94" + std::string("\x8c\x0b", 2) + "OrderedDict\x94\x93\x94)R\x94";
  const auto value = or_throw(parse("\x80\x04" + frame + name + "."));
  ASSERT_NE(value.get<PickleValue::Dict>(), nullptr);
  EXPECT_TRUE(value.get<PickleValue::Dict>()->empty());
  // Memo slots count up from 0: slot 3 holds the dict.
  EXPECT_NE(or_throw(parse("\x80\x04" + frame + name + "h\3.")).get<PickleValue::Dict>(), nullptr);
}

TEST(Pickle, BuildsTensors) {
  const auto value = or_throw(run(tensor(storage("BFloat16Storage", 6), "K\2K\3\x86", "K\3K\1\x86")));
  const auto* found = value.get<PickleTensor>();
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->dtype, DType::kBF16);
  EXPECT_EQ(found->storage, "0");
  EXPECT_EQ(found->storage_elements, 6);
  EXPECT_EQ(found->shape, (Shape{2, 3}));
  EXPECT_EQ(found->strides, (Shape{3, 1}));
}

TEST(Pickle, DropsTheMetadataOfAStateDict) {
  const auto value =
      or_throw(run(global("collections", "OrderedDict") + ")R" + text("w") + "K\1s}" + text("_metadata") + "}sb"));
  EXPECT_EQ(value.get<PickleValue::Dict>()->size(), 1u);
}

TEST(Pickle, RefusesToCallTheSystem) {
  expect_error(run(global("posix", "system") + text("true") + "\x85R"), "posix.system is not allowed");
  expect_error(run(global("os", "system") + text("true") + "\x85R"), "os.system is not allowed");
  expect_error(run(global("builtins", "eval") + text("1") + "\x85R"), "builtins.eval is not allowed");
  expect_error(run(text("posix") + text("system") + "\x93"), "posix.system is not allowed");
  expect_error(run(global("torch", "load")), "torch.load is not allowed");
  expect_error(run(global("torch._utils", "_rebuild_tensor_v2.__globals__")), "is not allowed");
}

TEST(Pickle, RefusesOpcodesThatTorchDoesNotNeed) {
  // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID, INT, LONG4, BYTEARRAY8, DUP, POP.
  for (const std::string opcode :
       {"iposix\nsystem\n", "o", "\x81", "\x92", "\x82\1", "P0\n", "I1\n", "\x8b\1\0\0\0\1", "\x96", "2", "0"}) {
    expect_error(run("(K\1" + opcode), "is not allowed");
  }
}

TEST(Pickle, RefusesOtherProtocols) {
  expect_error(parse(std::string("\x80\x06", 2)), "protocol 6; 2 to 5 was expected");
  expect_error(parse(std::string("\x80\x01", 2)), "protocol 1; 2 to 5 was expected");
}

TEST(Pickle, RefusesAnEmptyPickle) { expect_error(parse(""), "ends without a STOP"); }
TEST(Pickle, RefusesAPickleWithoutStop) { expect_error(parse(kProto + "N"), "ends without a STOP"); }
TEST(Pickle, RefusesAStopWithoutValue) { expect_error(run(""), "needs more values than there are"); }
TEST(Pickle, RefusesAStringPastTheEnd) {
  expect_error(run("X\xff\xff\xff\xffshort"), "in the middle of an instruction");
}
TEST(Pickle, RefusesAStringOfAllTheMemoryThereIs) {
  expect_error(run("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "in the middle of an instruction");
}
TEST(Pickle, RefusesAGlobalPastTheEnd) {
  expect_error(parse(kProto + "cposix\nsyst"), "in the middle of an instruction");
}
TEST(Pickle, RefusesIntegersBeyond64Bits) {
  expect_error(run(std::string("\x8a\x09") + "123456789"), "an integer of 9 bytes");
}
TEST(Pickle, RefusesATupleOfTooFew) { expect_error(run("K\1\x86"), "needs more values than there are"); }
TEST(Pickle, RefusesToReachBelowAMark) { expect_error(run("K\1(K\2\x86"), "needs more values than there are"); }
TEST(Pickle, RefusesATupleWithoutMark) { expect_error(run("K\1t"), "a mark is missing"); }
TEST(Pickle, RefusesToAppendToANumber) { expect_error(run("K\1K\2a"), "appends to what is no list"); }
TEST(Pickle, RefusesToAppendToATuple) { expect_error(run(")K\2a"), "appends to what is no list"); }
TEST(Pickle, RefusesToSetAnItemOfAList) { expect_error(run("]K\1K\2s"), "sets an item of what is no dict"); }
TEST(Pickle, RefusesAKeyWithoutAValue) { expect_error(run("}(K\1u"), "a key without a value"); }
TEST(Pickle, RefusesToRecallWhatWasNeverRemembered) {
  expect_error(run("h\7"), "recalls value 7, which was never remembered");
}
TEST(Pickle, RefusesToRememberNothing) { expect_error(run("q\1"), "remembers a value where there is none"); }
TEST(Pickle, RefusesToCallANumber) { expect_error(run("K\1)R"), "calls what is no function"); }
TEST(Pickle, RefusesToCallWithAList) {
  expect_error(run(global("collections", "OrderedDict") + "]R"), "calls what is no function");
}
TEST(Pickle, RefusesStrangeArguments) {
  expect_error(run(global("collections", "OrderedDict") + "K\1\x85R"),
               "collections.OrderedDict is called with arguments");
  expect_error(run(global("torch", "Size") + "K\1\x85R"), "torch.Size is called with arguments");
  expect_error(run(global("torch", "FloatStorage") + ")R"), "torch.FloatStorage is called with arguments");
  expect_error(run(global("torch._utils", "_rebuild_parameter") + ")R"), "_rebuild_parameter is called with arguments");
}
TEST(Pickle, RefusesATensorOfTooFewArguments) {
  expect_error(run(global("torch._utils", "_rebuild_tensor_v2") + "K\1\x85R"), "a tensor with arguments");
}
TEST(Pickle, RefusesATensorWithoutStorage) { expect_error(run(tensor("N", ")", ")")), "a tensor with arguments"); }
TEST(Pickle, RefusesAShapeOfText) {
  expect_error(run(tensor(storage(), text("x") + "\x85", "K\1\x85")), "a tensor with arguments");
}
TEST(Pickle, RefusesStridesOfAnotherRank) {
  expect_error(run(tensor(storage(), "K\4\x85", ")")), "a tensor with arguments");
}
TEST(Pickle, RefusesAShapeOfThousandsOfDimensions) {
  std::string shape = "(";
  for (int i = 0; i < 5000; ++i) shape += "K\1";
  expect_error(run(tensor(storage(), shape + "t", shape + "t")), "a tensor with arguments");
}
TEST(Pickle, RefusesAPersistentIdThatIsNoStorage) {
  expect_error(run("K\1Q"), "a persistent id that is no storage");
  expect_error(run("(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + "K\1tQ"),
               "a persistent id that is no storage");
  expect_error(run("(" + text("storage") + global("collections", "OrderedDict") + text("0") + text("cpu") + "K\1tQ"),
               "a persistent id that is no storage");
  expect_error(run("(" + text("module") + global("torch", "FloatStorage") + text("0") + text("cpu") + "K\1tQ"),
               "a persistent id that is no storage");
}
TEST(Pickle, RefusesToSetAttributesOfAPlainDict) {
  expect_error(run("}}b"), "sets attributes of what is no OrderedDict");
}
TEST(Pickle, RefusesAFunctionAsAValue) {
  expect_error(run(global("torch", "Size")), "stands where a value was expected");
}
TEST(Pickle, RefusesAStorageAsAValue) { expect_error(run(storage()), "stands where a value was expected"); }
TEST(Pickle, RefusesDeepNesting) {
  EXPECT_TRUE(run(std::string(60, ']') + std::string(59, 'a')).ok());
  expect_error(run(std::string(100000, ']') + std::string(99999, 'a')), "nested deeper than 64");
}
TEST(Pickle, RefusesAListThatHoldsItself) { expect_error(run("]q\1h\1a"), "nested deeper than 64"); }
TEST(Pickle, RefusesABombOfSharedLists) {
  // A list of ten of a list of ten of ...: 10^20 values in a few hundred bytes.
  std::string bomb = "]q\1K\1a";
  for (int level = 0; level < 20; ++level) {
    bomb += "](";
    for (int i = 0; i < 10; ++i) bomb += "h\1";
    bomb += "eq\1";
  }
  expect_error(run(bomb), "unfold to more than 4000000");
}
TEST(Pickle, RefusesABombOfASharedLongText) {
  std::string bomb = "](" + text(std::string(1 << 20, 'x')) + "q\1";
  for (int i = 0; i < 100000; ++i) bomb += "h\1";
  expect_error(run(bomb + "e"), "unfold to more than 4000000");
}
TEST(Pickle, EscapesControlCharactersOfNamesInErrors) {
  expect_error(run(global("a\x1b[31m", "b")), "a\\x1b[31m.b is not allowed");
}

}  // namespace
}  // namespace skein
