#include "skein/merge/model_ref.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace skein::merge {
namespace {

TEST(ModelRef, ReadsPathRevisionAndAdapterAndWritesThemBack) {
  for (const char* text : {"a/b", "a/b@rev", "a/b+c/d", "a/b@rev+c/d@rev2", "./folder", "/tmp/x@y/z"}) {
    const auto ref = parse_model_ref(text);
    ASSERT_TRUE(ref.ok()) << text;
    EXPECT_EQ(ref->text(), text);
  }
  EXPECT_EQ(parse_model_ref("a/b@rev+c/d@rev2")->adapter, "c/d");
  EXPECT_TRUE(parse_model_ref("/tmp/x@y/z")->revision.empty()) << "an @ in the middle of a path is part of it";
  EXPECT_FALSE(parse_model_ref("").ok());
  EXPECT_FALSE(parse_model_ref("a+b+c").ok());
}

TEST(ResolveModelPath, PrefersAFolderThenTheRecipesThenTheCache) {
  ASSERT_EQ(setenv("HF_HUB_CACHE", "cache", 1), 0);
  const auto env = make_memory_env();
  or_throw(env->make_folders("cache/models--me--m/snapshots/abc"));
  or_throw(env->make_folders("cache/models--me--m/refs"));
  or_throw(write_text_atomically(*env, "cache/models--me--m/refs/main", "abc\n"));
  or_throw(env->make_folders("recipes/beside"));
  EXPECT_EQ(or_throw(resolve_model_path(*env, "me/m", "", "recipes")), "cache/models--me--m/snapshots/abc");
  EXPECT_EQ(or_throw(resolve_model_path(*env, "me/m", "abc", "recipes")), "cache/models--me--m/snapshots/abc");
  EXPECT_EQ(or_throw(resolve_model_path(*env, "beside", "", "recipes")), "recipes/beside");
  const auto unknown = resolve_model_path(*env, "me/m", "v2", "recipes");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error().message, ::testing::HasSubstr("revision v2"));
  or_throw(env->make_folders("me/m"));
  EXPECT_EQ(or_throw(resolve_model_path(*env, "me/m", "", "recipes")), "me/m");
  ASSERT_EQ(unsetenv("HF_HUB_CACHE"), 0);
}

TEST(ResolveModelPath, NeverClimbsOutOfTheCache) {
  ASSERT_EQ(setenv("HF_HUB_CACHE", "cache", 1), 0);
  const auto env = make_memory_env();
  or_throw(env->make_folders("cache/models--m/snapshots"));
  or_throw(env->make_folders("secret"));
  or_throw(write_text_atomically(*env, "cache/models--m/x", "abc"));
  for (const char* revision : {"../../secret", "../x", "/etc"}) {
    EXPECT_FALSE(resolve_model_path(*env, "m", revision, ".").ok()) << revision;
  }
  ASSERT_EQ(unsetenv("HF_HUB_CACHE"), 0);
}

}  // namespace
}  // namespace skein::merge
