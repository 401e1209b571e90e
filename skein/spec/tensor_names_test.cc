#include "skein/spec/tensor_names.h"

#include <set>

#include "skein/io/safetensors.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

// Committed checkpoints hold exactly the tensors of the table, in its shapes (a tied head is stored once).
TEST(TensorNames, AreThoseOfTransformersCheckpoints) {
  for (const char* model : {"llama", "llama31", "qwen2", "qwen3", "gemma3", "t5_v10", "t5_v11"}) {
    const std::string folder = testing::golden_path(concat("models/", model));
    BackboneConfig config =
        or_throw(config_from_json(or_throw(read_json_file(real_env(), folder + "/config.json")), "config.json"));
    std::map<std::string, Shape> table, file;
    for (const TensorName& name : tensor_names(config)) table[name.name] = name.shape;
    const auto checkpoint = or_throw(open_safetensors_folder(real_env(), folder));
    for (const TensorInfo& info : checkpoint->tensors()) file[info.name] = info.shape;
    EXPECT_EQ(table, file) << model;
  }
}

TEST(TensorNames, NamesNoTensorTwice) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5}) {
    std::set<std::string> names, gguf_names;
    const auto table = tensor_names(testing::tiny_config(family));
    for (const TensorName& name : table) {
      names.insert(name.name);
      gguf_names.insert(name.gguf_name);
    }
    EXPECT_EQ(names.size(), table.size());
    EXPECT_EQ(gguf_names.size(), table.size());
  }
}

TEST(SlotNames, CountTheModulesOfThePaper) {
  // PHATGOOSE's T5-XL: 7 linears in each of 24 encoder blocks, 11 in each of 24 decoder blocks.
  BackboneConfig config = testing::tiny_config(Family::kT5);
  config.num_layers = config.num_decoder_layers = 24;
  const auto slots = slot_names(config);
  EXPECT_EQ(slots.size(), 432u);
  EXPECT_EQ(slots.front().module, "encoder.block.0.layer.0.SelfAttention.q");
  EXPECT_TRUE(slots[167].in_encoder);
  EXPECT_EQ(slots[168].module, "decoder.block.0.layer.0.SelfAttention.q");
  EXPECT_FALSE(slots[168].in_encoder);
}

TEST(SlotNames, StandInForwardOrderWithTheirSizes) {
  const auto slots = slot_names(testing::tiny_config());
  ASSERT_EQ(slots.size(), 14u);
  const char* kinds[] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  for (int i = 0; i < 14; ++i) {
    EXPECT_EQ(slots[i].kind, kinds[i % 7]);
    EXPECT_EQ(slots[i].layer, i / 7);
  }
  EXPECT_EQ(slots[1].module, "model.layers.0.self_attn.k_proj");
  EXPECT_EQ(slots[1].d_in, 12);
  EXPECT_EQ(slots[1].d_out, 8);
  EXPECT_EQ(slots[13].d_in, 20);
}

}  // namespace
}  // namespace skein
