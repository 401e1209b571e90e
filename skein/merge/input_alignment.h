// Inputs with vocabularies of different sizes or orders made to fit each other, tensor by tensor.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/plan.h"
#include "skein/merge/planned_source.h"
#include "skein/merge/vocabulary_merge.h"

namespace skein::merge {

// Opens every model of a recipe, adapters folded in: one source per recipe.models(), in that order. planned: stages
// that are not made, for a dry run.
Result<std::vector<std::unique_ptr<Source>>> open_inputs(Env& env, const Recipe& recipe,
                                                         const PlannedStages& planned = {});

// What make_plan's `adjust` does for a recipe: with a tokenizer key, every tensor that has a row per token is read in
// the output's vocabulary; without one, embeddings of different sizes are an error that names the key which mends it,
// or are cut to the rows that all have (truncate_embeddings: right only where the ids up to there mean the same
// tokens).
class InputAlignment {
 public:
  // sources: as make_plan gets them; they outlive this.
  InputAlignment() = default;  // no alignment at all: use make()
  static Result<std::unique_ptr<InputAlignment>> make(Env& env, const Recipe& recipe,
                                                      const std::vector<std::unique_ptr<Source>>& sources,
                                                      bool truncate_embeddings);

  Status adjust(OutputTensor& tensor) const;
  // Null for a recipe without a tokenizer key.
  const MergedVocabulary* vocabulary() const { return vocabulary_ ? &*vocabulary_ : nullptr; }

 private:
  Status align(OutputTensor& tensor) const;
  Status cut_or_refuse(OutputTensor& tensor) const;

  const Recipe* recipe_ = nullptr;
  std::vector<const Source*> sources_;
  bool truncate_ = false;
  std::optional<MergedVocabulary> vocabulary_;
};

}  // namespace skein::merge
