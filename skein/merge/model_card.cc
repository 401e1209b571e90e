#include <algorithm>
#include <set>

#include "skein/base/concat.h"
#include "skein/merge/output_files.h"

namespace skein::merge {
namespace {

// The hub id that a model was resolved from in the local cache ("models--org--name"), or empty for a folder of the
// user's: hubs accept no such names in a card's front matter.
std::string hub_id(const std::string& path, const std::string& folder) {
  std::string cached = "models--" + path;
  for (std::size_t at = cached.find('/'); at != std::string::npos; at = cached.find('/')) cached.replace(at, 1, "--");
  return folder.find("/" + cached + "/") == std::string::npos ? std::string() : path;
}

// A span of code that untrusted text cannot end.
std::string code(const std::string& text) {
  std::string safe = printable(text, 300);
  std::replace(safe.begin(), safe.end(), '`', '\'');
  return concat("`", safe, "`");
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true); }

std::string front_matter(const Plan& plan) {
  std::vector<std::string> ids;
  std::set<std::string> seen;
  const auto add = [&](const std::string& path, const std::string& folder) {
    const std::string id = hub_id(path, folder);
    if (!id.empty() && seen.insert(id).second) ids.push_back(id);
  };
  for (const auto& source : plan.sources) {
    add(source->ref.path, source->folder);
    if (!source->adapter_folder.empty()) add(source->ref.adapter, source->adapter_folder);
  }
  std::string text = "---\nbase_model:";
  if (ids.empty()) text += " []";
  for (const std::string& id : ids) text += concat("\n- ", quoted(id));
  return text + "\nlibrary_name: transformers\ntags:\n- mergekit\n- merge\n- skein\n---\n";
}

std::string model_line(const Source& source) {
  return concat("- ", code(source.ref.path), source.ref.adapter.empty() ? "" : " with the adapter ",
                source.ref.adapter.empty() ? std::string() : code(source.ref.adapter), "\n");
}

// A fence longer than any run of backticks inside.
std::string fenced(const std::string& text, const std::string& language) {
  std::size_t longest = 2, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(longest + 1, '`');
  return concat(fence, language, "\n", text, text.ends_with('\n') ? "" : "\n", fence, "\n");
}

std::string vocabulary_lines(const MergedVocabulary& vocabulary) {
  const VocabularyReport& report = vocabulary.report;
  return concat("## Vocabulary\n\n", vocabulary.num_tokens, " tokens in ", vocabulary.num_rows, " rows: ", report.kept,
                " of the first tokenizer, ", report.added, " added, ", report.dropped, " of other models left out. ",
                "Rows for models that lack a token: ", report.donated, " from another model or token, ",
                report.averaged, " averaged, ", report.zero, " zero.\n\n");
}

}  // namespace

std::string model_card(const Plan& plan, const MergedVocabulary* vocabulary, const SideFileOptions& options) {
  const Recipe& recipe = *plan.recipe;
  const MethodInfo& method = *plan.method;
  std::string text = front_matter(plan);
  text += concat(
      "# ", printable(options.output_name), "\n\nA merge of models made with ", options.program,
      ", by a recipe in mergekit's grammar.\n\n## Merge\n\nMethod: ", method.title.empty() ? method.name : method.title,
      " (", code(recipe.merge_method), ")", method.reference.empty() ? "" : concat(", ", method.reference));
  if (recipe.base_model) text += concat(". Base: ", code(recipe.base_model->text()));
  text += ".\n\nModels:\n\n";
  for (const auto& source : plan.sources) {
    if (recipe.base_model && source->ref == *recipe.base_model) continue;
    text += model_line(*source);
  }
  text += concat("\nSeed of random numbers: ", plan.options.seed, ".\n\n");
  if (vocabulary != nullptr) text += vocabulary_lines(*vocabulary);
  text += "## Recipe\n\n" + fenced(options.recipe_text, "yaml");
  text += "\n## Inputs\n\nDigests are XXH3-128 of each file's header.\n\n| file | bytes | digest |\n|---|---|---|\n";
  for (const auto& source : plan.sources) {
    for (const InputFile& file : source->files) {
      text += concat("| ", code(join_path(source->ref.path, base_name(file.path))), " | ", file.facts.size_bytes, " | ",
                     code(file.header_digest), " |\n");
    }
  }
  return text;
}

}  // namespace skein::merge
