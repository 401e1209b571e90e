#include "skein/merge/layer_name.h"

#include <gtest/gtest.h>

namespace skein::merge {
namespace {

TEST(LayerName, FindsStackAndLayerOfManyArchitectures) {
  const auto llama = split_layer_name("model.layers.12.mlp.up_proj.weight");
  ASSERT_TRUE(llama.has_value());
  EXPECT_EQ(llama->stack, "model.layers");
  EXPECT_EQ(llama->layer, 12);
  EXPECT_EQ(llama->rest, "mlp.up_proj.weight");
  EXPECT_EQ(split_layer_name("encoder.block.3.layer.0.SelfAttention.q.weight")->stack, "encoder.block");
  EXPECT_EQ(split_layer_name("transformer.h.0.ln_1.bias")->stack, "transformer.h");
  EXPECT_EQ(split_layer_name("model.layers.0.experts.7.w1.weight")->rest, "experts.7.w1.weight");
  EXPECT_FALSE(split_layer_name("model.norm.weight").has_value());
  EXPECT_FALSE(split_layer_name("mm_projector.0.weight").has_value()) << "numbered, and no stack of layers";
  EXPECT_FALSE(split_layer_name("model.layers.99999999999999999999.w").has_value());
  EXPECT_EQ(join_layer_name("model.layers", 3, "w"), "model.layers.3.w");
}

TEST(LayerName, CountsTheLayersOfEveryStack) {
  const auto stacks = layer_stacks({"encoder.block.0.w", "encoder.block.5.w", "decoder.block.1.w", "shared.weight"});
  EXPECT_EQ(stacks.at("encoder.block"), 6);
  EXPECT_EQ(stacks.at("decoder.block"), 2);
  EXPECT_EQ(stacks.size(), 2u);
}

TEST(LayerName, TellsWhatStandsBeforeTheLayersAndWhoseModuleATensorIs) {
  EXPECT_TRUE(is_before_layers("model.embed_tokens.weight"));
  EXPECT_TRUE(is_before_layers("transformer.wpe.weight"));
  EXPECT_FALSE(is_before_layers("model.norm.weight"));
  EXPECT_FALSE(is_before_layers("lm_head.weight"));
  EXPECT_TRUE(belongs_to_module("encoder.block.0.w", "encoder"));
  EXPECT_TRUE(belongs_to_module("model.visual.blocks.0.w", "vision_tower"));
  EXPECT_TRUE(belongs_to_module("lm_head.weight", "text_decoder"));
  EXPECT_FALSE(belongs_to_module("decoder.block.0.w", "encoder"));
}

}  // namespace
}  // namespace skein::merge
