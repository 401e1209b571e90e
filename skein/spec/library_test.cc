#include "skein/spec/library.h"

#include "skein/io/fault_env.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::put_file;
using testing::tiny_config;

// A base, two experts of it (the second with a gate) and an empty library, in memory.
struct World {
  std::unique_ptr<Env> env = make_memory_env();
  std::vector<SlotName> slots = slot_names(tiny_config());
  BaseModel base;
  Library library;

  World() {
    testing::put_base_folder(*env, "base", tiny_config());
    base = or_throw(open_base_model(*env, "base"));
    put_expert("experts/news", 1, or_throw(base_fingerprint(*env, base)));
    put_expert("experts/sums", 2, "");
    or_throw(write_gate(
        *env, "experts/sums",
        {"phatgoose", 10, or_throw(base_fingerprint(*env, base)), {{0, 1, std::vector<float>(12, 0.5f)}}}, slots));
    put_file(*env, "experts/sums/optimizer.pt", "not ours");
    library = or_throw(create_library(*env, "lib", base));
  }

  void put_expert(const std::string& folder, float value, const std::string& fingerprint) {
    LoraAdapter adapter;
    adapter.config.rank = 2;
    adapter.config.target_modules = {"layers.0.self_attn.q_proj"};
    adapter.modules.push_back({0, 2, 4, std::vector<float>(24, value), std::vector<float>(32, value)});
    or_throw(env->make_folders(folder));
    or_throw(write_lora_adapter(*env, folder, adapter, slots));
    if (!fingerprint.empty()) or_throw(write_card(*env, folder, {{"base_fingerprint", fingerprint}}));
  }
  Status add(const std::string& folder, const AddOptions& options = {}) {
    return add_expert(*env, library, base, folder, options);
  }
  std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const LibraryEntry& entry : or_throw(open_library(*env, "lib")).experts) names.push_back(entry.name);
    return names;
  }
  std::string manifest() { return or_throw(read_text_file(*env, "lib/library.json")); }
};

TEST(Library, HoldsExpertsInOrderWithWhatBelongsToThem) {
  World world;
  or_throw(world.add("experts/sums/"));
  or_throw(world.add("experts/news", {.name = "agnews"}));
  EXPECT_EQ(world.names(), (std::vector<std::string>{"sums", "agnews"}));
  const Library read = or_throw(open_library(*world.env, "lib"));
  EXPECT_EQ(read.base_fingerprint, or_throw(base_fingerprint(*world.env, world.base)));
  EXPECT_EQ(read.base_hint, "base");
  std::vector<std::string> files;
  for (const auto& [file, digest] : read.experts[0].digests) files.push_back(file);
  EXPECT_EQ(files, (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors",
                                             "gates/phatgoose.safetensors"}));
  EXPECT_FALSE(world.env->exists("lib/experts/sums/optimizer.pt"));
  EXPECT_TRUE(read_lora_adapter(*world.env, read.folder_of("agnews"), world.slots).ok());
  EXPECT_TRUE(or_throw(check_library(*world.env, read)).empty());
}

TEST(Library, ForgetsARemovedExpertAndKeepsTheOthersFiles) {
  World world;
  or_throw(world.add("experts/sums"));
  or_throw(world.add("experts/news"));
  const std::string before = or_throw(read_text_file(*world.env, "lib/experts/news/adapter_model.safetensors"));
  or_throw(remove_expert(*world.env, world.library, "sums"));
  EXPECT_EQ(world.names(), std::vector<std::string>{"news"});
  EXPECT_FALSE(world.env->exists("lib/experts/sums"));
  EXPECT_EQ(or_throw(read_text_file(*world.env, "lib/experts/news/adapter_model.safetensors")), before);
  expect_error(remove_expert(*world.env, world.library, "sums"), "no expert \"sums\"");
}

TEST(Library, RefusesANameItHasAndNamesThatArePaths) {
  World world;
  or_throw(world.add("experts/news"));
  expect_error(world.add("experts/news"), "has an expert news already");
  for (const char* name : {"../news", "a/b", "..", "-x", "a\nb"})
    expect_error(world.add("experts/news", {.name = name}), "no plain folder name");
  EXPECT_EQ(world.names().size(), 1u);
}

TEST(Library, RefusesAnExpertOfAnotherBaseNamingBothFingerprints) {
  World world;
  world.put_expert("experts/other", 3, "0123456789abcdef0123456789abcdef");
  expect_error(world.add("experts/other"), "0123456789abcdef0123456789abcdef");
  expect_error(world.add("experts/other"), world.library.base_fingerprint);
  EXPECT_TRUE(world.names().empty());
  EXPECT_FALSE(world.env->exists("lib/experts/other"));
  EXPECT_TRUE(world.add("experts/other", {.allow_other_base = true}).ok());
}

TEST(Library, RefusesAGateOfAnotherBase) {
  World world;
  or_throw(write_gate(*world.env, "experts/news", {"arrow", 0, "fedcba", {{0, 1, std::vector<float>(12, 0.5f)}}},
                      world.slots));
  expect_error(world.add("experts/news"), "gates/arrow.safetensors: made on the base with fingerprint fedcba");
}

TEST(Library, RefusesToAddWithAnotherBase) {
  World world;
  BackboneConfig wider = tiny_config();
  wider.vocabulary_size = 33;
  testing::put_base_folder(*world.env, "base2", wider);
  const BaseModel other = or_throw(open_base_model(*world.env, "base2"));
  expect_error(add_expert(*world.env, world.library, other, "experts/sums", {}), world.library.base_fingerprint);
}

TEST(Library, NamesChangedMissingAndUnlistedFiles) {
  World world;
  or_throw(world.add("experts/sums"));
  or_throw(world.add("experts/news"));
  put_file(*world.env, "lib/experts/news/adapter_config.json", "{}");
  or_throw(world.env->remove_file("lib/experts/sums/gates/phatgoose.safetensors"));
  put_file(*world.env, "lib/experts/sums/card.json", "{}");
  or_throw(world.env->make_folders("lib/experts/ghost"));
  const auto differences = or_throw(check_library(*world.env, world.library));
  ASSERT_EQ(differences.size(), 4u);
  EXPECT_NE(differences[0].find("gates/phatgoose.safetensors: missing"), std::string::npos);
  EXPECT_NE(differences[1].find("sums/card.json: not in library.json"), std::string::npos);
  EXPECT_NE(differences[2].find("news/adapter_config.json: digest"), std::string::npos);
  EXPECT_NE(differences[3].find("ghost: not in library.json"), std::string::npos);
}

TEST(Library, TakesOverAGateThatWasAddedToAnExpert) {
  World world;
  or_throw(world.add("experts/news"));
  or_throw(write_gate(*world.env, "lib/experts/news", {"arrow", 0, "", {{0, 1, std::vector<float>(12, 0.5f)}}},
                      world.slots));
  EXPECT_EQ(or_throw(check_library(*world.env, world.library)).size(), 1u);
  or_throw(record_files(*world.env, world.library, "news"));
  EXPECT_TRUE(or_throw(check_library(*world.env, or_throw(open_library(*world.env, "lib")))).empty());
}

TEST(Library, IsWholeAfterACrashAtAnyMoment) {
  World world;
  or_throw(world.add("experts/news"));
  const auto env = make_fault_env(*world.env);
  for (std::int64_t moment = 0;; ++moment) {
    env->set_plan({.fail_at_operation = env->operations() + moment});
    Library library = or_throw(open_library(*env, "lib"));
    const Status added = add_expert(*env, library, world.base, "experts/sums", {});
    env->set_plan({});
    const Library after = or_throw(open_library(*env, "lib"));
    // Listed means complete: the crash came before the listing or after it.
    for (const std::string& difference : or_throw(check_library(*env, after)))
      EXPECT_NE(difference.find("killed run"), std::string::npos) << difference;
    if (added.ok()) {
      EXPECT_EQ(after.experts.size(), 2u);
      break;
    }
    Library again = after;
    if (again.experts.size() == 2u) or_throw(remove_expert(*env, again, "sums"));
    ASSERT_LT(moment, 200);
  }
}

TEST(Library, IsCreatedOnlyInANewPlace) {
  World world;
  expect_error(create_library(*world.env, "lib", world.base), "exists already");
  expect_error(open_library(*world.env, "base"), "no library.json");
}

TEST(Library, RefusesManifestsThatLie) {
  World world;
  or_throw(world.add("experts/news"));
  const Json good = or_throw(parse_json(world.manifest(), "library.json"));
  const auto opened = [&](const std::function<void(Json&)>& edit) {
    Json json = good;
    edit(json);
    put_file(*world.env, "lib/library.json", json.dump());
    return open_library(*world.env, "lib");
  };
  EXPECT_TRUE(opened([](Json&) {}).ok());
  expect_error(opened([](Json& json) { json["experts"][0]["name"] = "../../etc"; }), "no plain folder name");
  expect_error(opened([](Json& json) { json["experts"][0]["files"]["../../../etc/passwd"] = "x"; }), "etc/passwd");
  expect_error(opened([](Json& json) { json["experts"][0]["files"]["gates/../x"] = "x"; }), "gates/../x");
  expect_error(opened([](Json& json) { json["experts"][0]["files"]["/x"] = "x"; }), "expected a plain name");
  expect_error(opened([](Json& json) { json["experts"].push_back(json["experts"][0]); }), "listed twice");
  expect_error(opened([](Json& json) { json["format_version"] = 2; }), "version 2");
  expect_error(opened([](Json& json) { json.erase("base_fingerprint"); }), "base_fingerprint");
  expect_error(opened([](Json& json) { json["experts"] = "none"; }), "no list \"experts\"");
  expect_error(opened([](Json& json) { json["experts"][0].erase("files"); }), "files");
}

}  // namespace
}  // namespace skein
