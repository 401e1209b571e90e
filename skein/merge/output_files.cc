#include "skein/merge/output_files.h"

#include <algorithm>
#include <utility>

#include "skein/base/concat.h"
#include "skein/merge/chat_templates.h"
#include "skein/merge/model_vocabulary.h"
#include "skein/text/jinja/template.h"

namespace skein::merge {
namespace {

constexpr const char* kOtherFiles[] = {"generation_config.json", "preprocessor_config.json", "processor_config.json",
                                       "video_preprocessor_config.json"};

Status copy_if_there(Env& env, const std::string& folder, const std::string& name, std::vector<SideFile>& files) {
  const std::string path = join_path(folder, name);
  if (!env.exists(path)) return {};
  SKEIN_ASSIGN(std::string text, read_text_file(env, path));
  files.push_back({name, std::move(text)});
  return {};
}

// A model's chat template, from the file of its own or from tokenizer_config.json. Empty: none.
Result<std::string> chat_template_in(Env& env, const std::string& folder) {
  const std::string file = join_path(folder, "chat_template.jinja");
  if (env.exists(file)) return read_text_file(env, file);
  const std::string path = join_path(folder, "tokenizer_config.json");
  if (!env.exists(path)) return std::string();
  SKEIN_ASSIGN(const Json config, read_json_file(env, path));
  const auto found = config.is_object() ? config.find("chat_template") : config.end();
  if (found == config.end()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {  // several, by name
    for (const Json& entry : *found) {
      if (!entry.is_object() || !entry.contains("template") || !entry["template"].is_string()) continue;
      if (entry.contains("name") && entry["name"] == "default") return entry["template"].get<std::string>();
    }
  }
  return std::string();
}

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// Into tokenizer_config.json, where every version of transformers reads it; files that would hide it are left out.
Status set_chat_template(const std::string& chat_template, const std::string& where, std::vector<SideFile>& files) {
  std::erase_if(files, [](const SideFile& file) { return file.name.starts_with("chat_template."); });
  auto file =
      std::find_if(files.begin(), files.end(), [](const SideFile& f) { return f.name == "tokenizer_config.json"; });
  Json config = Json::object();
  if (file == files.end()) {
    files.push_back({"tokenizer_config.json", ""});
    file = files.end() - 1;
  } else {
    SKEIN_ASSIGN(config, parse_json(file->text, join_path(where, file->name)));
    if (!config.is_object()) return Error{concat(where, "/tokenizer_config.json: an object was expected")};
  }
  config["chat_template"] = chat_template;
  file->text = config.dump(2) + "\n";
  return {};
}

// Code that the donor's config refers to, as models outside of transformers have it.
Status copy_code(Env& env, const Source& donor, std::vector<SideFile>& files) {
  if (!donor.config.contains("auto_map")) return {};
  SKEIN_ASSIGN(const std::vector<std::string> names, env.list(donor.folder));
  for (const std::string& name : names) {
    if (name.ends_with(".py") && is_safe_file_name(name)) SKEIN_TRY(copy_if_there(env, donor.folder, name, files));
  }
  return {};
}

// "auto": the template that most models have.
Result<std::string> most_common_template(Env& env, const Plan& plan) {
  std::vector<std::pair<std::string, int>> counts;
  for (const auto& source : plan.sources) {
    SKEIN_ASSIGN(const std::string text, chat_template_in(env, source->folder));
    const std::string key = trimmed(text);
    if (key.empty()) continue;
    auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& entry) { return entry.first == key; });
    if (found == counts.end()) found = counts.insert(counts.end(), {key, 0});
    ++found->second;
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? std::string() : most->first;
}

Status add_chat_template(Env& env, const Plan& plan, std::vector<SideFile>& files, std::vector<std::string>& warnings) {
  SKEIN_ASSIGN(const std::string chat_template, chosen_chat_template(env, plan));
  if (chat_template.empty()) {
    warnings.push_back("chat_template: auto, but no model has a chat template");
    return {};
  }
  if (!jinja::Template::parse(chat_template).ok()) {
    warnings.push_back("the chat template is written, but holds what Skein itself cannot render");
  }
  return set_chat_template(chat_template, donor_of(plan).folder, files);
}

}  // namespace

Result<std::string> chosen_chat_template(Env& env, const Plan& plan) {
  const std::string& wanted = *plan.recipe->chat_template;
  if (wanted == "auto") return most_common_template(env, plan);
  if (const auto built_in = chat_template_of_name(wanted)) return *built_in;
  if (wanted.find("{{") != std::string::npos || wanted.find("{%") != std::string::npos) return wanted;
  std::string names = "auto";
  for (const std::string_view name : chat_template_names()) names += concat(", ", name);
  return Error{
      concat(plan.recipe->path, ": chat_template \"", printable(wanted), "\" is neither Jinja nor one of ", names)};
}

Result<std::vector<SideFile>> side_files(Env& env, const Plan& plan, const MergedVocabulary* vocabulary,
                                         const SideFileOptions& options, std::vector<std::string>& warnings) {
  const Source& donor = donor_of(plan);
  std::vector<SideFile> files;
  if (!donor.config.empty()) {
    SKEIN_ASSIGN(const Json config, output_config(plan, vocabulary));
    files.push_back({"config.json", config.dump(2) + "\n"});
  } else {
    warnings.push_back(concat(donor.folder, " has no config.json, so the output has none"));
  }
  for (const char* name : kOtherFiles) SKEIN_TRY(copy_if_there(env, donor.folder, name, files));
  SKEIN_TRY(copy_code(env, donor, files));
  if (vocabulary != nullptr) {
    files.insert(files.end(), vocabulary->files.begin(), vocabulary->files.end());
  } else {
    for (const char* name : kTokenizerFiles) SKEIN_TRY(copy_if_there(env, donor.folder, name, files));
    if (!has_tokenizer(env, donor.folder)) {
      warnings.push_back(concat(donor.folder, " has no tokenizer, so the output has none"));
    }
  }
  if (plan.recipe->chat_template) SKEIN_TRY(add_chat_template(env, plan, files, warnings));
  if (options.write_model_card) {
    files.push_back({"README.md", model_card(plan, vocabulary, options)});
    files.push_back({"mergekit_config.yml", options.recipe_text});
  }
  std::sort(files.begin(), files.end(), [](const SideFile& a, const SideFile& b) { return a.name < b.name; });
  return files;
}

}  // namespace skein::merge
