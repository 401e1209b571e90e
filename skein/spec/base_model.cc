#include "skein/spec/base_model.h"

#include <algorithm>
#include <map>

#include "skein/base/concat.h"
#include "skein/io/gguf.h"
#include "skein/io/safetensors.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

// How exporters spell the names of the table: {start of the table's name, start of theirs}.
struct Spelling {
  const char* ours;
  const char* theirs;
};
constexpr Spelling kSpellings[] = {
    {"", ""},
    {"", "language_model."},              // image-and-text Gemma 3, transformers 4.50
    {"model.", "model.language_model."},  // the same, transformers 5
    {"model.", ""},                       // a bare model without its head
};

std::string spelled(const std::string& name, const Spelling& spelling) {
  const std::string_view ours = spelling.ours;
  return name.starts_with(ours) ? concat(spelling.theirs, name.substr(ours.size())) : name;
}

// Another Checkpoint under the table's names; tensors without one are left out.
class RenamedCheckpoint : public Checkpoint {
 public:
  RenamedCheckpoint(std::unique_ptr<Checkpoint> inner, std::map<std::string, std::string> inner_names)
      : inner_(std::move(inner)), inner_names_(std::move(inner_names)) {
    for (const auto& [name, inner_name] : inner_names_) {  // a map: sorted
      infos_.push_back(*inner_->find(inner_name));
      infos_.back().name = name;
    }
  }
  const std::string& path() const override { return inner_->path(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = inner_names_.find(name);
    return it == inner_names_.end() ? nullptr
                                    : &infos_[static_cast<std::size_t>(std::distance(inner_names_.begin(), it))];
  }
  Status read(const std::string& name, DType dtype, std::span<std::byte> out) const override {
    const auto it = inner_names_.find(name);
    return inner_->read(it == inner_names_.end() ? name : it->second, dtype, out);
  }
  std::optional<TensorView> view(const std::string& name) const override {
    const auto it = inner_names_.find(name);
    return it == inner_names_.end() ? std::nullopt : inner_->view(it->second);
  }
  const std::vector<std::pair<std::string, std::string>>& metadata() const override { return inner_->metadata(); }

 private:
  std::unique_ptr<Checkpoint> inner_;
  std::map<std::string, std::string> inner_names_;  // the table's name -> inner_'s
  std::vector<TensorInfo> infos_;
};

// Where the file keeps a tensor of the table; null if nowhere. Tied matrices are stored once, under any of their names.
const TensorInfo* find_spelled(const Checkpoint& weights, const TensorName& name, const Spelling& spelling) {
  if (const TensorInfo* info = weights.find(spelled(name.name, spelling))) return info;
  if (name.role != TensorRole::kEmbedding) return nullptr;
  for (const char* twin : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}) {
    if (const TensorInfo* info = weights.find(spelled(twin, spelling))) return info;
  }
  return nullptr;
}

Result<std::unique_ptr<Checkpoint>> under_table_names(std::unique_ptr<Checkpoint> weights,
                                                      const BackboneConfig& config) {
  const std::vector<TensorName> table = tensor_names(config);
  const Spelling* spelling = &kSpellings[0];
  for (const Spelling& candidate : kSpellings) {
    if (weights->find(spelled(table[1].name, candidate)) != nullptr) {  // the first block's first tensor
      spelling = &candidate;
      break;
    }
  }
  std::map<std::string, std::string> names;
  bool same = true;
  for (const TensorName& name : table) {
    const TensorInfo* info = find_spelled(*weights, name, *spelling);
    if (info == nullptr) {
      return Error{concat(weights->path(), ": no tensor ", name.name, "; expected one of shape ", to_string(name.shape),
                          " by config.json; the files are incomplete or config.json is another model's")};
    }
    if (info->shape != name.shape) {
      return Error{concat(weights->path(), ": tensor ", printable(info->name), " has shape ", to_string(info->shape),
                          "; expected ", to_string(name.shape), " by config.json; config.json is another model's")};
    }
    if (info->dtype != DType::kF32 && info->dtype != DType::kBF16 && info->dtype != DType::kF16) {
      return Error{concat(weights->path(), ": tensor ", printable(info->name), " is stored as ",
                          printable(info->stored_as), "; a base is F32, BF16 or F16; a quantised export?")};
    }
    same = same && info->name == name.name;
    names.emplace(name.name, info->name);
  }
  if (same) return weights;
  return std::unique_ptr<Checkpoint>(std::make_unique<RenamedCheckpoint>(std::move(weights), std::move(names)));
}

// generation_config.json's end tokens come first: chat models end a turn with another token than a text.
Status add_generation_config(Env& env, const std::string& folder, BackboneConfig& config) {
  const std::string path = join_path(folder, "generation_config.json");
  if (!env.exists(path)) return {};
  SKEIN_ASSIGN(const Json json, read_json_file(env, path));
  if (!json.is_object() || !json.contains("eos_token_id")) return {};
  std::vector<std::int64_t> ends;
  const Json& eos = json["eos_token_id"];
  const Json list = eos.is_array() ? eos : eos.is_null() ? Json::array() : Json::array({eos});
  for (const Json& id : list) {
    if (!id.is_number_integer()) return Error{concat(path, ": eos_token_id is not an integer or a list of integers")};
    ends.push_back(id.get<std::int64_t>());
  }
  for (const std::int64_t id : config.eos_tokens) {
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  config.eos_tokens = std::move(ends);
  return {};
}

// T5 files disagree with their own tie_word_embeddings (transformers 5 ties always and says so): a head in the file
// counts.
void settle_t5_head(const Checkpoint& weights, BackboneConfig& config) {
  if (!config.is_encoder_decoder()) return;
  const bool has_embedding =
      weights.find("shared.weight") != nullptr || weights.find("encoder.embed_tokens.weight") != nullptr;
  config.tied_embeddings = !(has_embedding && weights.find("lm_head.weight") != nullptr);
}

Result<BaseModel> open_gguf_base(Env& env, const std::string& path) {
  SKEIN_ASSIGN(std::unique_ptr<GgufFile> file, GgufFile::open(env, path));
  SKEIN_ASSIGN(BackboneConfig config, config_from_gguf(*file));
  SKEIN_ASSIGN(std::unique_ptr<Checkpoint> weights, gguf_as_checkpoint(std::move(file), config));
  return BaseModel{path, std::move(config), std::move(weights)};
}

Result<BaseModel> open_folder_base(Env& env, const std::string& path) {
  const std::string config_path = join_path(path, "config.json");
  if (!env.exists(config_path)) {
    const bool adapter = env.exists(join_path(path, "adapter_config.json"));
    return Error{concat(path, ": no config.json; ",
                        adapter ? "this is an adapter, which goes to --adapter beside its base"
                                : "a base is a Hugging Face model folder or a .gguf file")};
  }
  SKEIN_ASSIGN(const Json json, read_json_file(env, config_path));
  SKEIN_ASSIGN(BackboneConfig config, config_from_json(json, config_path));
  SKEIN_TRY(add_generation_config(env, path, config));
  const bool has_weights =
      env.exists(join_path(path, "model.safetensors")) || env.exists(join_path(path, "model.safetensors.index.json"));
  if (!has_weights && (env.exists(join_path(path, "pytorch_model.bin")) ||
                       env.exists(join_path(path, "pytorch_model.bin.index.json")))) {
    return Error{
        concat(path,
               ": the weights are a pickle (pytorch_model.bin), which can run code when read; save the model as "
               "safetensors with its own library first")};
  }
  SKEIN_ASSIGN(std::unique_ptr<Checkpoint> stored, open_safetensors_folder(env, path));
  settle_t5_head(*stored, config);
  SKEIN_ASSIGN(std::unique_ptr<Checkpoint> weights, under_table_names(std::move(stored), config));
  return BaseModel{path, std::move(config), std::move(weights)};
}

}  // namespace

Result<BaseModel> open_base_model(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const FileFacts facts, env.facts(path));
  return facts.is_folder ? open_folder_base(env, path) : open_gguf_base(env, path);
}

}  // namespace skein
