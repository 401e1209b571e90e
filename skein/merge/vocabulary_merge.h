// One vocabulary out of several: which tokens the output has, under which ids, and which rows stand for them.
//
// The rules are mergekit's where it has one that can be relied on (docs/formats/merged-vocabulary.md lists the
// differences):
// - `base` and a model's name take that tokenizer as it is; `union` keeps the base's ids, then adds the ordinary tokens
//   of the other models, then their added tokens, model by model in the recipe's order and by id within a model.
// - A token that a model has gets its own row there. Otherwise: what the recipe's `tokens` says; else the only owner's
//   row; else the base's; else the mean of the owners. A token that nobody has gets zeros.
// - Rows beyond the tokenizer are kept (mergekit drops them): padding rows of a model stay its own, others are the mean
//   of the model's rows.
// - New ordinary tokens join the model's own vocabulary with the merges (or scores) that make them; mergekit turns them
//   into added tokens, which cuts them out of the middle of words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/embedding_rows.h"
#include "skein/merge/model_vocabulary.h"
#include "skein/merge/recipe.h"

namespace skein::merge {

struct VocabularyReport {
  std::int64_t kept = 0;           // of the tokenizer that the output's began as
  std::int64_t added = 0;          // from other models or the recipe
  std::int64_t dropped = 0;        // of any model, that the output lacks
  std::int64_t averaged = 0;       // rows that are a mean of owners in some model
  std::int64_t donated = 0;        // rows taken from another model or another token in some model
  std::int64_t zero = 0;           // rows of zeros in some model
  std::int64_t padding = 0;        // rows beyond the tokens
  std::vector<std::string> notes;  // sentences for the log
};

struct SideFile {
  std::string name;
  std::string text;
};

struct MergedVocabulary {
  std::int64_t num_tokens = 0;
  std::int64_t num_rows = 0;    // of the output's embedding: tokens and padding
  std::vector<RowMap> maps;     // by model, as given
  std::vector<SideFile> files;  // the output's tokenizer
  VocabularyReport report;
};

struct VocabularyInput {
  ModelRef ref;
  std::string folder;         // with config and tokenizer
  std::int64_t num_rows = 0;  // of its embedding
};

// base_idx: the recipe's base_model among the inputs. Without one the first input stands in as the base of `union` and
// `base`, and tokens that several others own are averaged.
Result<MergedVocabulary> merge_vocabularies(Env& env, const TokenizerRecipe& recipe,
                                            const std::vector<VocabularyInput>& inputs, std::optional<int> base_idx,
                                            const std::string& where);

}  // namespace skein::merge
