#include "skein/serve/model_pool.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/infer/text_hints.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

constexpr std::size_t kRecent = 64;
// Every setting of a router holds gates of its own, N experts times the width of every linear.
constexpr std::size_t kMostRouters = 32;

// Every field that tells one router from another.
std::string key_of(const RouterOptions& router) {
  std::string key =
      concat(router.kind, "\n", router.expert, "\n", router.top_k, " ", router.top_p, " ", router.temperature, " ",
             router.softmax_over_chosen, " ", static_cast<int>(router.gate_norm), " ", router.bf16_scores, " ",
             router.seed, " ", static_cast<int>(router.use.scope), " ", static_cast<int>(router.use.sharing), " ",
             static_cast<int>(router.use.mixing), " ", static_cast<int>(router.gates), " ", router.description_weight);
  for (const auto* names : {&router.only, &router.without, &router.general}) {
    key += "\n-";
    for (const std::string& name : *names) key += concat("\n", name);
  }
  return key;
}

bool has_all(Env& env, const skein::Library& library, const RouterKind& kind) {
  if (kind.gates == nullptr || kind.from_weights) return true;
  return std::all_of(library.experts.begin(), library.experts.end(), [&](const LibraryEntry& entry) {
    const std::vector<std::string> kinds = gate_kinds(env, library.folder_of(entry.name));
    return std::find(kinds.begin(), kinds.end(), kind.gates) != kinds.end();
  });
}

bool has_texts(Env& env, const skein::Library& library) {
  return std::all_of(library.experts.begin(), library.experts.end(), [&](const LibraryEntry& entry) {
    return env.exists(join_path(library.folder_of(entry.name), kTextsFile));
  });
}

}  // namespace

// The library as it was when it was last read.
struct ModelPool::Library {
  LoadedModel prototype;             // with the bank of all its experts
  std::vector<std::string> routers;  // kinds that its files allow
};

ModelPool::ModelPool(Env& env, const EngineOptions& options) : env_(env), options_(options) {
  ModelOptions base = options_.model;
  base.adapter.clear();
  base.library.clear();
  base.mixture.clear();
  base_ = make(load_model(env_, base));
  for (const std::string& folder : options_.mixtures) {
    ModelOptions with_mixture = base;
    with_mixture.mixture = folder;
    LoadedModel model = base_->model;
    change_experts(env_, model, with_mixture);
    const std::string name = base_name(folder);
    if (!mixtures_.emplace(name, make(std::move(model))).second) {
      throw Failure({concat("two mixtures are named ", printable(name), "; rename one folder"), ErrorKind::kUsage});
    }
  }
  library_ = read_library();
}

std::shared_ptr<const ServedModel> ModelPool::make(LoadedModel model) {
  auto served = std::make_shared<ServedModel>();
  served->reads_whole_prompt = model.filler != nullptr && model.filler->reads_whole_prompts();
  served->model = std::move(model);
  served->identity = next_identity_++;
  return served;
}

std::shared_ptr<const ModelPool::Library> ModelPool::read_library() const {
  if (options_.model.library.empty()) return nullptr;
  const skein::Library files = or_throw(open_library(env_, options_.model.library));
  if (files.experts.empty()) return nullptr;  // until one is loaded
  auto library = std::make_shared<Library>();
  library->prototype = base_->model;
  ModelOptions options = options_.model;
  options.adapter.clear();
  options.mixture.clear();
  options.router = default_router("merged");  // needs no gates
  change_experts(env_, library->prototype, options);
  for (const RouterKind& kind : router_kinds()) {
    const std::string name = kind.name;
    if (name == "single" || !has_all(env_, files, kind)) continue;
    if (kind.needs_hints && !(has_texts(env_, files) && env_.exists(options_.model.sentence_encoder))) continue;
    library->routers.push_back(name);
  }
  return library;
}

void ModelPool::reload() {
  const std::lock_guard one_at_a_time(reload_mutex_);
  std::shared_ptr<const Library> library = read_library();
  const std::lock_guard lock(mutex_);
  library_ = std::move(library);
  recent_.clear();
}

void ModelPool::make_room_for_router() {
  const auto num_routers = [this] {
    std::erase_if(routers_, [](const auto& router) { return router.expired(); });
    return routers_.size();
  };
  for (auto oldest = recent_.end(); oldest != recent_.begin() && num_routers() >= kMostRouters;) {
    --oldest;
    if (oldest->second.use_count() == 1) oldest = recent_.erase(oldest);
  }
  if (num_routers() >= kMostRouters) {
    throw TooManyRouters(
        {concat(kMostRouters, " different settings of routers are in use, as many as are held at once")});
  }
}

std::shared_ptr<const ServedModel> ModelPool::resolve(const ModelChoice& choice) {
  if (choice.kind == ModelChoice::Kind::kBase) return base_;
  if (choice.kind == ModelChoice::Kind::kMixture) {
    const auto found = mixtures_.find(choice.name);
    if (found == mixtures_.end())
      throw Failure({concat("no mixture ", printable(choice.name), " is served"), ErrorKind::kUsage});
    return found->second;
  }
  ModelOptions options = options_.model;
  options.adapter.clear();
  options.mixture.clear();
  options.router = choice.router;
  if (choice.kind == ModelChoice::Kind::kExpert) {
    options.router = default_router("single");
    options.router.expert = choice.name;
  }
  const std::string key = key_of(options.router);
  const std::lock_guard lock(mutex_);  // also while gates are read: a second request for them waits
  if (library_ == nullptr) throw Failure({"no library is served, so there are no experts", ErrorKind::kUsage});
  const auto found =
      std::find_if(recent_.begin(), recent_.end(), [&](const auto& entry) { return entry.first == key; });
  if (found != recent_.end()) {
    recent_.splice(recent_.begin(), recent_, found);
    return recent_.front().second;
  }
  const bool is_router = choice.kind == ModelChoice::Kind::kRouter;
  if (is_router) make_room_for_router();
  LoadedModel model = library_->prototype;
  change_experts(env_, model, options);
  recent_.emplace_front(key, make(std::move(model)));
  if (is_router) routers_.push_back(recent_.front().second);
  if (recent_.size() > kRecent) recent_.pop_back();
  return recent_.front().second;
}

std::vector<ModelName> ModelPool::list_models() const {
  std::vector<ModelName> names;
  names.push_back({ModelChoice{}, "the base alone", {}});
  std::shared_ptr<const Library> library;
  {
    const std::lock_guard lock(mutex_);
    library = library_;
  }
  if (library != nullptr) {
    const std::vector<std::string>& experts = library->prototype.expert_names;
    for (const std::string& expert : experts) {
      names.push_back({{.kind = ModelChoice::Kind::kExpert, .name = expert}, "one expert", experts});
    }
    for (const std::string& kind : library->routers) {
      names.push_back({{.kind = ModelChoice::Kind::kRouter, .name = kind, .router = default_router(kind)},
                       router_kind(kind).help,
                       experts});
    }
  }
  for (const auto& [name, served] : mixtures_) {
    names.push_back({{.kind = ModelChoice::Kind::kMixture, .name = name},
                     "experts and routers trained together",
                     served->model.expert_names});
  }
  return names;
}

}  // namespace skein
