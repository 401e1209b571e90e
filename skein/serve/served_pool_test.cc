#include "skein/serve/served_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "skein/base/concat.h"
#include "skein/serve/fake_engine.h"
#include "skein/serve/model_pool.h"
#include "skein/serve/tiny_engine.h"

namespace skein {
namespace {

namespace fs = std::filesystem;
using testing::FakeEngine;
using testing::put_tiny_model;
using ::testing::HasSubstr;

// A base and a library "pool" of one expert on a real disk, adapters in the folder "allowed".
class ServedPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    put_tiny_model(env_, base(), Family::kLlama);
    put_adapter("resident", 1);
    const BaseModel opened = or_throw(open_base_model(env_, base()));
    Library library = or_throw(create_library(env_, library_path(), opened));
    or_throw(add_expert(env_, library, opened, allowed("resident"), {}));
    engine_.experts = {"resident"};
    options_ = {.base = base(), .library = library_path(), .adapter_folder = folder_ / "allowed"};
  }

  std::string base() const { return folder_ / "base"; }
  std::string library_path() const { return folder_ / "pool"; }
  std::string allowed(const std::string& name) const { return folder_ / "allowed/" + name; }
  std::vector<SlotName> slots() { return slot_names(or_throw(open_base_model(env_, base())).config); }

  void put_adapter(const std::string& name, std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    const std::vector<SlotName> all = slots();
    LoraAdapter adapter = random_adapter(all, std::vector<std::int64_t>(all.size(), 2), generator);
    adapter.config.rank = 2;
    adapter.config.alpha = 1;
    adapter.config.target_modules = {std::string(kAllLinear)};
    change_(adapter);
    or_throw(env_.make_folders(allowed(name)));
    or_throw(write_lora_adapter(env_, allowed(name), adapter, all));
  }
  // Changes the text of a file of an adapter.
  void edit(const std::string& path, const std::string& from, const std::string& to) {
    std::string text = or_throw(read_text_file(env_, path));
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    or_throw(write_text_atomically(env_, path, text.replace(at, from.size(), to)));
  }
  std::vector<std::string> experts() {
    std::vector<std::string> names;
    for (const LibraryEntry& entry : or_throw(open_library(env_, library_path())).experts) names.push_back(entry.name);
    return names;
  }
  // The error's code; "" for none.
  template <typename Work>
  std::string code_of(const Work& work) {
    try {
      work();
      return "";
    } catch (const ApiFailure& failure) {
      message_ = failure.error().message;
      return failure.error().code;
    }
  }
  std::string load(ServedPool& pool, const std::string& name, const std::string& path) {
    return code_of([&] { pool.load(engine_, {.name = name, .path = path}); });
  }
  std::string unload(ServedPool& pool, const std::string& name) {
    return code_of([&] { pool.unload(engine_, {.name = name}); });
  }

  Env& env_ = real_env();
  const TemporaryFolder folder_;
  FakeEngine engine_;
  ServedPoolOptions options_;
  std::function<void(LoraAdapter&)> change_ = [](LoraAdapter&) {};
  std::string message_;
};

using Names = std::vector<std::string>;

TEST_F(ServedPoolTest, LoadsAndUnloadsWhatItLoaded) {
  put_adapter("guest", 2);
  ServedPool pool(env_, options_);
  EXPECT_EQ(load(pool, "visitor", "guest"), "");
  EXPECT_EQ(experts(), (Names{"resident", "visitor"}));
  EXPECT_EQ(engine_.num_reloads, 1);
  EXPECT_EQ(pool.follow(engine_), "") << "its own change is no news";
  engine_.experts.push_back("visitor");
  EXPECT_EQ(load(pool, "visitor", "guest"), "adapter_already_loaded");
  EXPECT_EQ(unload(pool, "resident"), "adapter_not_found") << "it was there before";
  EXPECT_EQ(unload(pool, "visitor"), "");
  EXPECT_EQ(experts(), Names{"resident"});
  EXPECT_FALSE(fs::exists(library_path() + "/experts/visitor"));
  EXPECT_EQ(unload(pool, "visitor"), "adapter_not_found");
}

TEST_F(ServedPoolTest, NamesThatMeanSomethingElseAreRefused) {
  put_adapter("guest", 2);
  ServedPool pool(env_, options_);
  for (const std::string& name : {std::string(""),
                                  std::string("."),
                                  std::string(".."),
                                  std::string("../guest"),
                                  std::string("/etc"),
                                  std::string("a/b"),
                                  std::string("a\\b"),
                                  std::string("a\nb"),
                                  std::string("a\0b", 3),
                                  std::string("-rf"),
                                  std::string(".hidden"),
                                  std::string("%2e%2e"),
                                  std::string("%252e"),
                                  std::string("vis\u0131tor"),
                                  std::string("\u202eguest"),
                                  std::string("b\u0430se"),
                                  std::string(10'000, 'a'),
                                  std::string("base"),
                                  std::string("__base__"),
                                  std::string("default"),
                                  std::string("skein"),
                                  std::string("a b")}) {
    EXPECT_EQ(load(pool, name, "guest"), "invalid_adapter_name") << name.substr(0, 40);
    EXPECT_EQ(unload(pool, name), "invalid_adapter_name") << name.substr(0, 40);
  }
  EXPECT_EQ(experts(), Names{"resident"});
}

TEST_F(ServedPoolTest, RefusesWhatIsNoAdapterOfTheBaseAndKeepsNothingOfIt) {
  ServedPool pool(env_, options_);
  const auto refuses = [&](const std::string& path, const std::string& why) {
    EXPECT_EQ(load(pool, "guest", path), "invalid_adapter") << path;
    EXPECT_THAT(message_, HasSubstr(why)) << path;
    EXPECT_EQ(experts(), Names{"resident"});
    EXPECT_FALSE(fs::exists(library_path() + "/experts/guest"));
    EXPECT_EQ(engine_.num_reloads, 0);
  };
  change_ = [](LoraAdapter& adapter) { adapter.modules[1].a[3] = std::nanf(""); };
  put_adapter("nan", 2);
  refuses("nan", "NaN or infinite values");
  change_ = [](LoraAdapter& adapter) { adapter.modules[0].b[0] = INFINITY; };
  put_adapter("infinite", 2);
  refuses("infinite", "NaN or infinite values");
  change_ = [](LoraAdapter&) {};
  put_adapter("other_rank", 2);
  edit(allowed("other_rank") + "/adapter_config.json", "\"r\": 2", "\"r\": 3");
  refuses("other_rank", "rank");
  put_adapter("renamed", 2);
  edit(allowed("renamed") + "/adapter_model.safetensors", "layers.0.self_attn.q_proj.lora_A",
       "layers.9.self_attn.q_proj.lora_A");
  refuses("renamed", "layers.9");
  put_adapter("pickled", 2);
  fs::rename(allowed("pickled") + "/adapter_model.safetensors", allowed("pickled") + "/adapter_model.bin");
  refuses("pickled", "adapter_model");
  put_adapter("torn", 2);
  fs::resize_file(allowed("torn") + "/adapter_model.safetensors", 2000);
  refuses("torn", "adapter_model.safetensors");
  put_adapter("foreign", 2);
  or_throw(write_card(env_, allowed("foreign"), {{"base_fingerprint", std::string(32, '0')}}));
  refuses("foreign", "base");
  fs::create_directories(allowed("empty"));
  refuses("empty", "adapter_config.json");
}

TEST_F(ServedPoolTest, HoldsTheLimits) {
  put_adapter("guest", 2);
  options_.max_loaded = 1;
  ServedPool pool(env_, options_);
  EXPECT_EQ(load(pool, "a", "guest"), "");
  EXPECT_EQ(load(pool, "b", "guest"), "adapter_limit_exceeded");
  EXPECT_EQ(unload(pool, "a"), "");
  EXPECT_EQ(load(pool, "b", "guest"), "");
  options_.adapter_limits.max_bytes = 1000;
  ServedPool narrow(env_, options_);
  EXPECT_EQ(load(narrow, "c", "guest"), "path_forbidden");
  EXPECT_THAT(message_, HasSubstr("--max-adapter-mib"));
}

TEST_F(ServedPoolTest, TakesBackWhatTheEngineCannotRead) {
  put_adapter("guest", 2);
  class : public FakeEngine {
    void reload() override { throw Failure({"no memory"}); }
  } engine;
  ServedPool pool(env_, options_);
  EXPECT_EQ(code_of([&] { pool.load(engine, {.name = "guest", .path = "guest"}); }), "invalid_adapter");
  EXPECT_EQ(experts(), Names{"resident"});
}

TEST_F(ServedPoolTest, FollowsChangesOnDisk) {
  put_adapter("guest", 2);
  ServedPool pool(env_, options_);
  EXPECT_EQ(pool.follow(engine_), "");
  const BaseModel opened = or_throw(open_base_model(env_, base()));
  Library library = or_throw(open_library(env_, library_path()));
  or_throw(add_expert(env_, library, opened, allowed("guest"), {}));
  EXPECT_THAT(pool.follow(engine_), HasSubstr("has changed"));
  EXPECT_EQ(engine_.num_reloads, 1);
  EXPECT_EQ(pool.follow(engine_), "");
}

TEST_F(ServedPoolTest, WithoutALibraryWhatIsLoadedGoesWithTheServer) {
  put_adapter("guest", 2);
  options_.library.clear();
  std::string library;
  {
    ServedPool pool(env_, options_);
    library = pool.library();
    EXPECT_EQ(load(pool, "guest", "guest"), "");
    EXPECT_TRUE(fs::exists(library + "/experts/guest/adapter_model.safetensors"));
  }
  EXPECT_FALSE(fs::exists(library));
}

// The weights of experts, which may be gigabytes, live as long as a library that has them or a request that uses them.
TEST(ModelPool, ExpertsThatAreNoLongerServedAreFreed) {
  testing::TinyEngine tiny(Family::kLlama);
  ModelPool pool(*tiny.env, tiny.options);
  const ModelChoice choice{.kind = ModelChoice::Kind::kExpert, .name = "two"};
  auto used = pool.resolve(choice);
  const std::weak_ptr<const ExpertBank> bank = used->model.bank;
  Library library = or_throw(open_library(*tiny.env, "pool"));
  or_throw(remove_expert(*tiny.env, library, "two"));
  pool.reload();
  EXPECT_THROW(pool.resolve(choice), Failure);
  EXPECT_FALSE(bank.expired()) << "a request is under way";
  used.reset();
  EXPECT_TRUE(bank.expired());
}

// Settings come from requests: a client that makes up new ones must not fill the memory with gates.
TEST(ModelPool, HoldsABoundedNumberOfRouterSettings) {
  testing::TinyEngine tiny(Family::kLlama);
  ModelPool pool(*tiny.env, tiny.options);
  const auto router = [](int i) {
    ModelChoice choice{.kind = ModelChoice::Kind::kRouter, .router = default_router("phatgoose")};
    choice.router.temperature = 1 + i;
    return choice;
  };
  std::vector<std::weak_ptr<const ServedModel>> made;
  for (int i = 0; i < 100; ++i) made.push_back(pool.resolve(router(i)));
  EXPECT_LE(std::count_if(made.begin(), made.end(), [](const auto& weak) { return !weak.expired(); }), 32);
  EXPECT_FALSE(made.back().expired());
  std::vector<std::shared_ptr<const ServedModel>> used;
  EXPECT_THROW(for (int i = 0; i < 100; ++i) used.push_back(pool.resolve(router(i))), TooManyRouters);
  EXPECT_EQ(used.size(), 32u);
  EXPECT_NO_THROW(pool.resolve(router(0)));  // one of those in use
  EXPECT_NO_THROW(pool.resolve({.kind = ModelChoice::Kind::kExpert, .name = "two"}));
  used.pop_back();
  EXPECT_NO_THROW(pool.resolve(router(200)));
}

}  // namespace
}  // namespace skein
