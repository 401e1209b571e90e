#include "skein/serve/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

Result<ApiKeys> keys_of(const std::string& text) {
  const auto env = make_memory_env();
  EXPECT_TRUE(env->make_folders("/k").ok());
  EXPECT_TRUE(write_text_atomically(*env, "/k/keys", text).ok());
  return ApiKeys::read(*env, "/k/keys");
}

TEST(ApiKeys, AdmitEachKeyAndNothingElse) {
  const auto keys = keys_of("# two\nfirst-key-1\n\nsecond-key-2\r\n");
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(keys->key_of("Bearer first-key-1"), 0);
  EXPECT_EQ(keys->key_of("bearer second-key-2"), 1);
  for (const char* wrong : {"Bearer first-key-2", "Bearer first-key-", "Bearer first-key-11", "first-key-1", "Bearer ",
                            "Bearer", "Basic first-key-1", "", "Bearer  first-key-1", "Bearer # two"}) {
    EXPECT_FALSE(keys->key_of(wrong).has_value()) << wrong;
  }
  EXPECT_FALSE(keys->key_of(std::nullopt).has_value());
  EXPECT_FALSE(keys->key_of("Bearer " + std::string(100'000, 'x')).has_value());
  // A key that is another's beginning, with NULs as the padding has them.
  EXPECT_FALSE(keys->key_of(std::string("Bearer first-key-1") + std::string(3, '\0')).has_value());
}

TEST(ApiKeys, OpenServersAdmitEveryone) { EXPECT_TRUE(ApiKeys().key_of(std::nullopt).has_value()); }

TEST(ApiKeys, FilesWithoutAKeyAreErrorsThatShowNone) {
  EXPECT_FALSE(keys_of("# nothing\n").ok());
  const auto spaced = keys_of("my secret key\n");
  ASSERT_FALSE(spaced.ok());
  EXPECT_THAT(spaced.error().message, ::testing::Not(::testing::HasSubstr("secret")));
  EXPECT_FALSE(keys_of("short\n").ok());
  EXPECT_FALSE(keys_of(std::string(257, 'k') + "\n").ok());
}

TEST(ExpectedHost, IsALoopbackNameOnLoopback) {
  for (const char* good : {"localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"}) {
    EXPECT_TRUE(is_expected_host(good, "127.0.0.1", {})) << good;
  }
  for (const char* bad : {"evil.example", "evil.example:8000", "", "localhost.evil.example", "128.0.0.1"}) {
    EXPECT_FALSE(is_expected_host(bad, "127.0.0.1", {})) << bad;
  }
  EXPECT_TRUE(is_expected_host("skein.example:80", "localhost", {"skein.example"}));
  EXPECT_TRUE(is_expected_host("anything", "0.0.0.0", {}));
}

}  // namespace
}  // namespace skein
