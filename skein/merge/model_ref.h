// The name of a model in a recipe, and where its files lie on this machine.
#pragma once

#include <string>
#include <string_view>

#include "skein/base/result.h"
#include "skein/io/env.h"

namespace skein::merge {

// "path_or_id[@revision][+adapter[@revision]]". `path` may also be the name of an earlier stage of the recipe; it is
// empty for an adapter alone that a recipe spells "+adapter".
struct ModelRef {
  std::string path;
  std::string revision;          // empty: none given
  std::string adapter;           // empty: none
  std::string adapter_revision;  // empty: none given
  int line = 0;                  // of the recipe

  std::string text() const;  // as a recipe spells it
  bool operator==(const ModelRef& other) const { return text() == other.text(); }
  bool operator<(const ModelRef& other) const { return text() < other.text(); }
};
Result<ModelRef> parse_model_ref(std::string_view text);

// The folder (or .gguf file) of `path`: as it stands, else relative to `beside` (the recipe's folder), else a hub id in
// the local Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME or ~/.cache/huggingface/hub), at the
// revision (default "main"). Never downloads; the error says where was looked.
Result<std::string> resolve_model_path(Env& env, const std::string& path, const std::string& revision,
                                       const std::string& beside);

}  // namespace skein::merge
