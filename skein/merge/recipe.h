// A merge recipe as plain structs: mergekit's grammar, Skein's additions, the line of everything that can be wrong.
// Grammar and meaning: docs/formats/recipe.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/dtype.h"
#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/method.h"
#include "skein/merge/model_ref.h"

namespace skein::merge {

// What a recipe says about one parameter: a scalar, a gradient, or a list of {filter, value}.
struct Setting {
  struct Case {
    std::string filter;                  // substring of the tensor's name; empty or "*": every tensor
    std::vector<ParameterValue> values;  // one: that value; several: a gradient over the layers, or steps
  };
  std::vector<Case> cases;  // the first whose filter fits counts
  int line = 0;
};
using Settings = std::map<std::string, Setting>;

// The value for a tensor at depth t in [0, 1] of its slice: a kNumber is interpolated between the values, bools and
// words are stepped. Nothing where no case fits: the next level of the recipe is asked then.
std::optional<ParameterValue> value_at(const Setting& setting, ParameterSpec::Kind kind, const std::string& tensor_name,
                                       double t);

struct InputModel {
  ModelRef model;
  Settings parameters;
};
struct SliceSource {
  ModelRef model;
  std::int64_t from = 0, to = 0;  // layers [from, to)
  Settings parameters;
  int line = 0;
};
struct OutputSlice {
  std::vector<SliceSource> sources;  // at least one, all of one length
  std::optional<ModelRef> base_model;
  Settings parameters;
  int line = 0;
};
struct OutputModule {
  std::string name;  // as in the recipe; empty for a recipe without `modules`
  std::vector<OutputSlice> slices;
  std::vector<InputModel> models;  // exactly one of the two is not empty
  Settings parameters;
  int line = 0;
};

// Where the embedding row of one token comes from.
struct TokenRow {
  enum class Kind {
    kDefault,
    kModel,
    kToken,
    kTokenId,
    kZero
  };  // the usual rule; a model's row of the token itself,
      // of another token, of an id; zeros
  Kind kind = Kind::kDefault;
  ModelRef model;
  std::string token;          // kToken
  std::int64_t token_id = 0;  // kTokenId
  bool force = false;         // even for models that have the token
  int line = 0;
};
// `tokenizer`, or its short form `tokenizer_source`.
struct TokenizerRecipe {
  enum class From { kUnion, kBase, kModel };
  From from = From::kUnion;
  ModelRef model;                                        // kModel
  std::int64_t pad_to_multiple_of = 0;                   // 0: not given
  std::vector<std::pair<std::string, TokenRow>> tokens;  // in file order
  int line = 0;
};

struct Recipe {
  std::string path;  // of the file, for messages and relative names
  std::string name;  // of this stage; empty for the result of a file
  int line = 0;
  std::string merge_method;
  std::optional<ModelRef> base_model;
  std::vector<OutputModule> modules;  // one without a name for `models` and `slices`
  Settings parameters;
  std::optional<DType> dtype, out_dtype;
  std::optional<TokenizerRecipe> tokenizer;
  std::optional<std::string> chat_template;
  std::vector<std::string> warnings;

  // Every model named as an input or as a base, each once, in order of appearance; a base not listed comes last.
  std::vector<ModelRef> models() const;
};

// All documents of a recipe file, in order. Unknown keys are errors with the line and the nearest known key; keys that
// mergekit once had, or ignores, are warnings.
Result<std::vector<Recipe>> parse_recipes(const std::string& text, const std::string& path);

// The stages that the result (the one document without a name, else the last) needs, each after those it names, the
// result last: indices into `recipes`. A circle, or a name given twice, is an error.
Result<std::vector<std::size_t>> stage_order(const std::vector<Recipe>& recipes);

}  // namespace skein::merge
