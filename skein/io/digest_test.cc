#include "skein/io/digest.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

TEST(Digest, IsXxh3With128Bits) {
  // The test vector of xxHash's own documentation for empty input.
  EXPECT_EQ(Digest().hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(Digest, DoesNotDependOnThePieces) {
  const std::string text = "a longer text that is fed in pieces";
  Digest whole, pieces;
  whole.update(std::as_bytes(std::span(text)));
  for (const char& character : text) pieces.update(std::as_bytes(std::span(&character, 1)));
  EXPECT_EQ(whole.hex(), pieces.hex());
}

TEST(Digest, OfTextsKnowsWhereOneEnds) {
  Digest first, second;
  first.update(std::string("ab"));
  first.update(std::string("c"));
  second.update(std::string("a"));
  second.update(std::string("bc"));
  EXPECT_NE(first.hex(), second.hex());
}

TEST(Digest, OfAFileIsTheDigestOfItsBytes) {
  const std::string bytes(3 << 20, 'x');
  const auto env = testing::env_with("f", bytes);
  Digest digest;
  digest.update(std::as_bytes(std::span(bytes)));
  EXPECT_EQ(or_throw(digest_of_file(*env, "f")), digest.hex());
}

TEST(Digest, OfAMissingFileIsAnError) {
  const auto env = make_memory_env();
  testing::expect_error(digest_of_file(*env, "none"), "no such file");
}

}  // namespace
}  // namespace skein
