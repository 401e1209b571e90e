#include "skein/merge/adapter_merge.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/merge/adapter_source.h"  // is_adapter_folder
#include "skein/merge/ia3_file.h"
#include "skein/merge/ia3_merge.h"
#include "skein/merge/lora_merge.h"

namespace skein::merge {
namespace {

// Where an adapter alone is named: "+adapter", or as if it were a model.
std::pair<std::string, std::string> adapter_name(const ModelRef& ref) {
  return ref.path.empty() ? std::pair(ref.adapter, ref.adapter_revision) : std::pair(ref.path, ref.revision);
}

Status check_recipe(const Recipe& recipe, std::vector<std::string>& warnings) {
  const auto fault = [&](const char* what) { return Error{concat(recipe.path, ", line ", recipe.line, ": ", what)}; };
  if (recipe.modules.size() != 1 || recipe.modules[0].models.empty()) {
    return fault("adapters merge as `models`; they have no layers to slice and no modules");
  }
  if (recipe.tokenizer || recipe.chat_template) {
    return fault("a merge of adapters writes no tokenizer: leave out tokenizer, tokenizer_source and chat_template");
  }
  const auto other_type = [](const std::optional<DType>& type) { return type && *type != DType::kF32; };
  if (other_type(recipe.dtype) || other_type(recipe.out_dtype)) {
    warnings.push_back(concat(recipe.path, ": merged adapters are written in float32, whatever dtype says"));
  }
  if (recipe.base_model) {
    warnings.push_back(concat(recipe.path, ": base_model only gives its name to a merge of adapters; it is not read"));
  }
  return {};
}

// Whether the adapters are (IA)3; some of both kinds is an error.
Result<bool> are_ia3(Env& env, const std::vector<std::string>& folders) {
  std::optional<bool> ia3;
  for (const std::string& folder : folders) {
    SKEIN_ASSIGN(const AdapterKind kind, adapter_kind_of(env, folder));
    const bool is_ia3 = kind == AdapterKind::kIa3;
    if (ia3 && *ia3 != is_ia3) return Error{concat(folder, ": LoRA and (IA)3 adapters do not merge with each other")};
    ia3 = is_ia3;
  }
  return ia3.value_or(false);
}

Result<std::string> card_of(Env& env, const Recipe& recipe, const std::vector<std::string>& adapter_folders,
                            const MergedAdapter& report, const std::string& recipe_text, const std::string& program) {
  std::string text = concat("---\nlibrary_name: peft\ntags:\n- merge\n- skein\n---\n# Merged adapter\n\nMade with ",
                            program, " from:\n\n");
  for (std::size_t i = 0; i < adapter_folders.size(); ++i) {
    std::string name = printable(recipe.modules[0].models[i].model.text());
    std::replace(name.begin(), name.end(), '`', '\'');
    SKEIN_ASSIGN(const std::string digest,
                 digest_of_file(env, join_path(adapter_folders[i], "adapter_model.safetensors")));
    text += concat("- `", name, "`, XXH3-128 of its weights ", digest, "\n");
  }
  if (report.relative_error > 0) {
    text += concat("\nRelative error of the cut to a smaller rank: ", report.relative_error, ".\n");
  }
  // As an indented block, which no text can end.
  text += "\nRecipe:\n\n    ";
  for (const char c : recipe_text) text += c == '\n' ? std::string("\n    ") : std::string(1, c);
  return text + "\n";
}

}  // namespace

Result<std::string> adapter_folder_of(Env& env, const ModelRef& ref, const std::string& recipe_path) {
  const auto& [name, revision] = adapter_name(ref);
  return resolve_model_path(env, name, revision, parent_folder(recipe_path));
}

Result<bool> merges_adapters(Env& env, const Recipe& recipe) {
  std::size_t adapters = 0, others = 0;
  std::string a_model, an_adapter;
  for (const ModelRef& ref : recipe.models()) {
    if (recipe.base_model && ref == *recipe.base_model) continue;
    const bool alone = ref.path.empty() || ref.adapter.empty();
    bool is_adapter = ref.path.empty();
    if (alone && !is_adapter) {
      const auto folder = adapter_folder_of(env, ref, recipe.path);
      is_adapter = folder.ok() && is_adapter_folder(env, *folder);
    }
    ++(is_adapter ? adapters : others);
    (is_adapter ? an_adapter : a_model) = ref.text();
  }
  if (adapters > 0 && others > 0) {
    return Error{concat(recipe.path, ": \"", printable(an_adapter), "\" is an adapter alone and \"", printable(a_model),
                        "\" a model; write BASE+ADAPTER for the adapter, or list adapters only")};
  }
  return adapters > 0;
}

Result<MergedAdapter> merge_adapters(Env& env, const Recipe& recipe, std::uint64_t seed, const std::string& folder,
                                     const std::string& recipe_text, const std::string& program,
                                     std::vector<std::string>& warnings) {
  SKEIN_TRY(check_recipe(recipe, warnings));
  std::vector<std::string> adapter_folders;
  for (const InputModel& input : recipe.modules[0].models) {
    SKEIN_ASSIGN(std::string adapter, adapter_folder_of(env, input.model, recipe.path));
    adapter_folders.push_back(std::move(adapter));
  }
  SKEIN_ASSIGN(const bool ia3, are_ia3(env, adapter_folders));
  MergedAdapter report;
  if (ia3) {
    SKEIN_ASSIGN(report, merge_ia3(env, recipe, seed, adapter_folders, folder, warnings));
  } else {
    SKEIN_ASSIGN(report, merge_lora(env, recipe, seed, adapter_folders, folder, warnings));
  }
  SKEIN_ASSIGN(const std::string card, card_of(env, recipe, adapter_folders, report, recipe_text, program));
  SKEIN_TRY(write_text_atomically(env, join_path(folder, "README.md"), card));
  SKEIN_TRY(write_text_atomically(env, join_path(folder, "mergekit_config.yml"), recipe_text));
  return report;
}

}  // namespace skein::merge
