#include "skein/infer/loaded_model.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>

#include "skein/infer/tiny_model.h"
#include "skein/route/spectral_gates.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;

// A base, two adapters and a library of both with gates, in memory.
struct World : ::testing::Test {
  std::unique_ptr<Env> env = make_memory_env();
  ModelOptions options;
  std::string fingerprint;

  World() {
    testing::put_tiny_model(*env, "base", Family::kLlama);
    options.base = "base";
    const BaseModel base = or_throw(open_base_model(*env, "base"));
    fingerprint = or_throw(base_fingerprint(*env, base));
    put_expert("one", 0.25f);
    put_expert("two", -0.5f);
    Library library = or_throw(create_library(*env, "pool", base));
    or_throw(add_expert(*env, library, base, "one", {}));
    or_throw(add_expert(*env, library, base, "two", {}));
  }

  void put_expert(const std::string& folder, float value) {
    const auto slots = slot_names(or_throw(open_base_model(*env, "base")).config);
    LoraAdapter adapter;
    adapter.config.rank = 2;
    adapter.config.target_modules = {"q_proj", "down_proj"};
    GateFile gate{"phatgoose", 10, fingerprint, {}};
    for (const AdaptedSlot& slot : or_throw(match_slots(adapter.config, slots))) {
      const SlotName& name = slots[static_cast<std::size_t>(slot.slot_idx)];
      std::vector<float> a(static_cast<std::size_t>(2 * name.d_in)), b(static_cast<std::size_t>(2 * name.d_out)),
          v(static_cast<std::size_t>(name.d_in));
      for (std::size_t i = 0; i < a.size(); ++i) a[i] = value * static_cast<float>(i % 5);
      for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 3) - 1;
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = value * static_cast<float>(i % 4);
      adapter.modules.push_back({slot.slot_idx, 2, slot.scale, a, b});
      gate.modules.push_back({slot.slot_idx, 1, v});
    }
    or_throw(env->make_folders(folder));
    or_throw(write_lora_adapter(*env, folder, adapter, slots));
    or_throw(write_gate(*env, folder, gate, slots));
    or_throw(write_card(*env, folder, {{"base_fingerprint", fingerprint}}));
  }

  static at::Tensor logits(const LoadedModel& model) {
    const c10::InferenceMode inference;
    ForwardState state = model.new_state();
    return model.backbone->logits(model.backbone->forward(pack({{{5, 80, 200, 7}}}, at::kCPU), nullptr, state));
  }
};

TEST_F(World, GivesThePlainBaseWithoutOptions) {
  const LoadedModel model = load_model(*env, options);
  EXPECT_EQ(model.bank, nullptr);
  EXPECT_EQ(model.new_state().filler, nullptr);
}

TEST_F(World, GivesAnAdapterWhatItGivesTheSameExpertOfALibrary) {
  options.adapter = "two";
  LoadedModel model = load_model(*env, options);
  EXPECT_EQ(model.bank->names(), std::vector<std::string>{"two"});
  const at::Tensor alone = logits(model);
  options.adapter.clear();
  options.library = "pool";
  options.router.kind = "single";
  options.router.expert = "two";
  change_experts(*env, model, options);
  EXPECT_EQ(model.bank->names(), (std::vector<std::string>{"one", "two"}));
  EXPECT_TRUE(logits(model).equal(alone));
  options.library.clear();
  change_experts(*env, model, options);
  EXPECT_FALSE(logits(model).equal(alone));
}

TEST_F(World, RoutesWithTheLibrarysGatesAndKeepsTheBankForAnotherRouter) {
  options.library = "pool";
  LoadedModel model = load_model(*env, options);
  const ExpertBank* bank = model.bank.get();
  const at::Tensor routed = logits(model);
  options.router.kind = "merged";
  change_experts(*env, model, options);
  EXPECT_EQ(model.bank.get(), bank);
  EXPECT_FALSE(logits(model).equal(routed));
  Library library = or_throw(open_library(*env, "pool"));
  or_throw(remove_expert(*env, library, "one"));
  change_experts(*env, model, options);
  EXPECT_EQ(model.bank->names(), std::vector<std::string>{"two"});
}

TEST_F(World, MakesArrowsGatesOfTheWeightsWhereTheyAreNotInTheFolder) {
  options.library = "pool";
  options.router = default_router("arrow");
  options.router.top_k = 1;
  LoadedModel model = load_model(*env, options);
  const at::Tensor made = logits(model);
  const auto& slots = model.backbone->slots();
  for (const char* name : {"one", "two"}) {
    const std::string folder = std::string("pool/experts/") + name;
    or_throw(write_gate(*env, folder, arrow_gate(or_throw(read_lora_adapter(*env, folder, slots)), slots), slots));
  }
  change_experts(*env, model, options);
  EXPECT_TRUE(logits(model).equal(made));
  options.router = default_router("spectr");
  change_experts(*env, model, options);
  EXPECT_FALSE(logits(model).equal(made));
}

TEST_F(World, SubtractsGeneralExpertsAndRoutesAmongTheOthers) {
  options.library = "pool";
  options.router = default_router("merged");
  options.router.general = {"one"};
  LoadedModel model = load_model(*env, options);
  EXPECT_EQ(model.bank->names(), std::vector<std::string>{"two"});
  const at::Tensor subtracted = logits(model);
  options.router.general.clear();
  options.router.only = {"two"};
  change_experts(*env, model, options);
  EXPECT_FALSE(logits(model).equal(subtracted));
  options.router.general = {"nobody"};
  EXPECT_THAT(failure_of([&] { change_experts(*env, model, options); }), HasSubstr("it holds one, two"));
  options.router.general = {"one", "two"};
  EXPECT_THAT(failure_of([&] { change_experts(*env, model, options); }), HasSubstr("must be one left"));
}

TEST_F(World, NamesTheExpertThatLacksAGate) {
  or_throw(env->remove_file("pool/experts/two/gates/phatgoose.safetensors"));
  options.library = "pool";
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }), HasSubstr("two"));
}

TEST_F(World, RefusesExpertsOfAnotherBaseNamingBothFingerprints) {
  or_throw(write_card(*env, "one", {{"base_fingerprint", "0123"}}));
  options.adapter = "one";
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }),
              ::testing::AllOf(HasSubstr("0123"), HasSubstr(fingerprint)));
  options.allow_other_base = true;
  EXPECT_EQ(failure_of([&] { load_model(*env, options); }), "no failure");
  options.allow_other_base = false;
  options.adapter.clear();
  options.library = "pool";
  Json manifest = or_throw(read_json_file(*env, "pool/library.json"));
  manifest["base_fingerprint"] = "4567";
  testing::put_file(*env, "pool/library.json", manifest.dump());
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }),
              ::testing::AllOf(HasSubstr("4567"), HasSubstr(fingerprint)));
}

TEST_F(World, RefusesAdapterAndLibraryTogetherAndAnEmptyLibrary) {
  options.adapter = "one";
  options.library = "pool";
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }), HasSubstr("exclude each other"));
  or_throw(create_library(*env, "empty", or_throw(open_base_model(*env, "base"))));
  options.adapter.clear();
  options.library = "empty";
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }), HasSubstr("no experts in it"));
}

TEST_F(World, RefusesATokenizerLargerThanTheEmbedding) {
  BackboneConfig config = testing::tiny_config();
  config.vocabulary_size = 260;
  testing::put_base_folder(*env, "base", config);
  EXPECT_THAT(failure_of([&] { load_model(*env, options); }), HasSubstr("261 tokens and the embedding 260"));
}

}  // namespace
}  // namespace skein
