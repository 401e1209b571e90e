// What lies beside the weights of a merged model: config, generation config, tokenizer, model card, recipe.
//
// The donor is the recipe's base_model, else its first model. Its files are copied; config.json is changed where the
// output differs from it: number of layers, kinds of layers, rows of the vocabulary, type of the weights, whether the
// head is tied.
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/plan.h"
#include "skein/merge/vocabulary_merge.h"  // SideFile

namespace skein::merge {

struct SideFileOptions {
  std::string recipe_text;  // of the whole file, copied as mergekit_config.yml
  std::string output_name;  // title of the model card: the output folder's last component
  std::string program;      // "Skein 0.1.0", for the card
  bool write_model_card = true;
};

// In the order of their names. vocabulary: null for a recipe without a tokenizer key. Problems that leave the model
// usable (a donor without a tokenizer) are told in `warnings`.
Result<std::vector<SideFile>> side_files(Env& env, const Plan& plan, const MergedVocabulary* vocabulary,
                                         const SideFileOptions& options, std::vector<std::string>& warnings);

// The source whose files are copied.
const Source& donor_of(const Plan& plan);
// The donor's config.json with the output's facts.
Result<Json> output_config(const Plan& plan, const MergedVocabulary* vocabulary);
// README.md: front matter that model hubs read, the recipe, every input file with size and digest.
std::string model_card(const Plan& plan, const MergedVocabulary* vocabulary, const SideFileOptions& options);
// The recipe's chat_template as Jinja: "auto" is the one most inputs have (the earlier input's among equals), else a
// built-in name or Jinja itself. Empty for "auto" where no input has one.
Result<std::string> chosen_chat_template(Env& env, const Plan& plan);

}  // namespace skein::merge
