#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/tokenizer.h"

namespace skein {
namespace {

// tokenizer_config.json, with what special_tokens_map.json and chat_template.jinja add to it; empty if there is none.
Result<std::string> read_config(Env& env, const std::string& folder) {
  Json config = Json::object();
  const std::string path = join_path(folder, "tokenizer_config.json");
  if (env.exists(path)) {
    SKEIN_ASSIGN(config, read_json_file(env, path));
    if (!config.is_object()) return Error{concat(path, ": an object was expected")};
  }
  const std::string map_path = join_path(folder, "special_tokens_map.json");
  if (env.exists(map_path)) {
    SKEIN_ASSIGN(const Json map, read_json_file(env, map_path));
    if (!map.is_object()) return Error{concat(map_path, ": an object was expected")};
    for (const auto& [key, value] : map.items()) {
      if (!config.contains(key)) config[key] = value;
    }
  }
  const std::string template_path = join_path(folder, "chat_template.jinja");
  if (env.exists(template_path)) {
    SKEIN_ASSIGN(config["chat_template"], read_text_file(env, template_path));
  }
  return config.empty() ? std::string() : config.dump();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_tokenizer(Env& env, const std::string& base) {
  SKEIN_ASSIGN(const FileFacts facts, env.facts(base));
  if (!facts.is_folder) {
    SKEIN_ASSIGN(const auto file, GgufFile::open(env, base));
    return tokenizer_from_gguf(*file);
  }
  SKEIN_ASSIGN(const std::string config, read_config(env, base));
  const std::string json_path = join_path(base, "tokenizer.json");
  if (env.exists(json_path)) {
    SKEIN_ASSIGN(const std::string json, read_text_file(env, json_path));
    return tokenizer_from_json(json, config, json_path);
  }
  for (const char* name : {"tokenizer.model", "spiece.model"}) {
    const std::string path = join_path(base, name);
    if (!env.exists(path)) continue;
    SKEIN_ASSIGN(const auto file, env.map(path));
    return tokenizer_from_sentencepiece(file->bytes(), config, path);
  }
  return Error{concat(base, ": has no tokenizer.json, tokenizer.model or spiece.model; the folder is no whole model")};
}

}  // namespace skein
