#include "skein/merge/output_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/merge/chat_templates.h"
#include "skein/merge/input_alignment.h"
#include "skein/text/jinja/template.h"

namespace skein::merge {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kGolden = std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge/";

struct Planned {
  std::unique_ptr<Recipe> recipe;
  std::unique_ptr<InputAlignment> alignment;
  std::unique_ptr<Plan> plan;
};

// A recipe as if it lay in tests/golden/merge/FOLDER.
Result<Planned> planned(const std::string& text, const std::string& folder = "", bool truncate = false) {
  Planned result;
  SKEIN_ASSIGN(auto recipes, parse_recipes(text, kGolden + folder + "recipe.yml"));
  result.recipe = std::make_unique<Recipe>(std::move(recipes.at(0)));
  SKEIN_ASSIGN(auto sources, open_inputs(real_env(), *result.recipe));
  SKEIN_ASSIGN(result.alignment, InputAlignment::make(real_env(), *result.recipe, sources, truncate));
  SKEIN_ASSIGN(result.plan, make_plan(*result.recipe, std::move(sources), {},
                                      [&](OutputTensor& tensor) { return result.alignment->adjust(tensor); }));
  return result;
}

std::string golden_recipe(const std::string& path) { return or_throw(read_text_file(real_env(), kGolden + path)); }

Json config_of(const Planned& merge) { return or_throw(output_config(*merge.plan, merge.alignment->vocabulary())); }

std::vector<SideFile> files_of(const Planned& merge) {
  std::vector<std::string> warnings;
  return or_throw(side_files(real_env(), *merge.plan, merge.alignment->vocabulary(),
                             {.recipe_text = "merge_method: linear\n", .output_name = "out", .program = "Skein 0.1.0"},
                             warnings));
}

const std::string* find_file(const std::vector<SideFile>& files, const std::string& name) {
  for (const SideFile& file : files) {
    if (file.name == name) return &file.text;
  }
  return nullptr;
}

TEST(OutputConfig, CountsTheLayersOfSlices) {
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("recipes/stacked_bf16.yml"))))["num_hidden_layers"], 4);
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("recipes/linear_bf16.yml"))))["num_hidden_layers"], 3);
}

TEST(OutputConfig, NamesTheTypeOfTheWeights) {
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("recipes/linear_bf16.yml"))))["torch_dtype"], "bfloat16");
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("recipes/linear_f16_bf16.yml"))))["torch_dtype"], "float16");
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("recipes/task_arithmetic_out_f32_bf16.yml"))))["torch_dtype"],
            "float32");
}

TEST(OutputConfig, HasTheRowsOfTheMergedVocabulary) {
  EXPECT_EQ(config_of(or_throw(planned(golden_recipe("tokenizer/recipes/union.yml"), "tokenizer/")))["vocab_size"], 42);
  EXPECT_EQ(
      config_of(or_throw(planned(golden_recipe("tokenizer/recipes/union_padded.yml"), "tokenizer/")))["vocab_size"],
      48);
}

const char* const kDifferentSizes =
    "merge_method: linear\nmodels:\n- {model: models/plain, parameters: {weight: 1}}\n"
    "- {model: models/tools, parameters: {weight: 1}}\n";

TEST(InputAlignment, RefusesEmbeddingsOfDifferentSizesWithTheKeyThatMendsIt) {
  const auto refused = planned(kDifferentSizes, "tokenizer/");
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("lm_head.weight has 30 in models/plain, 27 in models/tools rows"));
  EXPECT_THAT(refused.error().message, HasSubstr("tokenizer_source: base"));
}

TEST(InputAlignment, CutsEmbeddingsToTheRowsAllHaveWhenAsked) {
  const Planned merge = or_throw(planned(kDifferentSizes, "tokenizer/", true));
  EXPECT_EQ(config_of(merge)["vocab_size"], 27);
}

TEST(SideFiles, CopiesTheDonorsTokenizerAndWritesCardAndRecipe) {
  const Planned merge =
      or_throw(planned("merge_method: linear\nbase_model: models/tools\nmodels:\n"
                       "- {model: models/tools, parameters: {weight: 1}}\n",
                       "tokenizer/"));
  const auto files = files_of(merge);
  const std::string donor = kGolden + "tokenizer/models/tools/";
  ASSERT_NE(find_file(files, "tokenizer.json"), nullptr);
  EXPECT_EQ(*find_file(files, "tokenizer.json"), or_throw(read_text_file(real_env(), donor + "tokenizer.json")));
  EXPECT_EQ(*find_file(files, "mergekit_config.yml"), "merge_method: linear\n");
  const std::string& card = *find_file(files, "README.md");
  EXPECT_THAT(card,
              testing::StartsWith("---\nbase_model: []\nlibrary_name: transformers\ntags:\n- mergekit\n- merge\n"));
  EXPECT_THAT(card, HasSubstr("```yaml\nmerge_method: linear\n```"));
  EXPECT_THAT(card, HasSubstr("`models/tools/model.safetensors`"));
}

TEST(SideFiles, WritesTheMergedTokenizerOfAUnion) {
  const auto files = files_of(or_throw(planned(golden_recipe("tokenizer/recipes/union.yml"), "tokenizer/")));
  EXPECT_THAT(*find_file(files, "tokenizer.json"), HasSubstr("<tool>"));
  EXPECT_THAT(*find_file(files, "README.md"), HasSubstr("42 tokens in 42 rows: 25 of the first tokenizer, 17 added"));
}

std::string chat_template_in(const std::vector<SideFile>& files) {
  return or_throw(parse_json(*find_file(files, "tokenizer_config.json"), "test"))["chat_template"].get<std::string>();
}

TEST(SideFiles, TakesTheChatTemplateThatTheRecipeAsksFor) {
  const std::string linear = golden_recipe("tokenizer/recipes/base.yml");
  // tools and other have one each; the earlier input's counts among equals.
  auto files = files_of(or_throw(planned(linear + "\nchat_template: auto\n", "tokenizer/")));
  EXPECT_EQ(chat_template_in(files), "{% for m in messages %}{{ m.content }}{% endfor %}");
  files = files_of(or_throw(planned(linear + "\nchat_template: chatml\n", "tokenizer/")));
  EXPECT_EQ(chat_template_in(files), *chat_template_of_name("chatml"));
  EXPECT_EQ(find_file(files, "chat_template.jinja"), nullptr);
  files = files_of(or_throw(planned(linear + "\nchat_template: '{{ messages[0].content }}!'\n", "tokenizer/")));
  EXPECT_EQ(chat_template_in(files), "{{ messages[0].content }}!");
  const Planned wrong = or_throw(planned(linear + "\nchat_template: chatlm\n", "tokenizer/"));
  EXPECT_THAT(chosen_chat_template(real_env(), *wrong.plan).error().message,
              HasSubstr("neither Jinja nor one of auto, alpaca, chatml"));
}

std::string rendered(std::string_view name, std::vector<std::pair<std::string, std::string>> turns, bool prompt) {
  jinja::Value::List messages;
  for (const auto& [role, content] : turns) {
    messages.push_back(jinja::Value::Dict{{"role", role}, {"content", content}});
  }
  const auto parsed = or_throw(jinja::Template::parse(*chat_template_of_name(name)));
  return or_throw(parsed.render(
      {{"messages", messages}, {"add_generation_prompt", prompt}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}));
}

TEST(ChatTemplates, RenderTheFormatsTheyAreNamedAfter) {
  const std::vector<std::pair<std::string, std::string>> turns = {
      {"system", "Be kind."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}};
  EXPECT_EQ(rendered("chatml", turns, true),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello"
            "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      rendered("llama3", turns, true),
      "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>"
      "\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user"
      "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(rendered("mistral", turns, true), "<s> [INST] Be kind.\n\nHi [/INST] Hello</s> [INST] Bye [/INST]");
  EXPECT_EQ(rendered("alpaca", turns, true),
            "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nHello\n\n### Instruction:\nBye\n\n### Response:\n");
  EXPECT_EQ(rendered("exaone", {turns.begin() + 1, turns.end()}, true),
            "[|system|][|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n[|user|]Bye\n[|assistant|]");
  for (const std::string_view name : chat_template_names()) {
    EXPECT_THAT(rendered(name, turns, false), Not(testing::IsEmpty())) << name;
  }
}

}  // namespace
}  // namespace skein::merge
