#include "skein/serve/served_pool.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

constexpr std::size_t kMaxNameBytes = 128;

// Names that stand for something else, or would be read as another name (a look-alike, an escape).
void check_name(const std::string& name) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  const bool is_good = name.size() <= kMaxNameBytes && is_safe_file_name(name) && name.front() != '.' &&
                       std::all_of(name.begin(), name.end(), is_plain);
  const bool is_reserved = name == "base" || name == "__base__" || name == "default" || name == "skein";
  if (is_good && !is_reserved) return;
  throw ApiFailure({.message = concat("lora_name is '", printable(name, 60), "'",
                                      is_reserved ? ", which is reserved" : "", "; expected up to ", kMaxNameBytes,
                                      " letters, digits, '-', '_' and '.', not beginning with '-' or '.'"),
                    .code = "invalid_adapter_name",
                    .param = "lora_name"});
}

template <typename T>
T or_refuse(Result<T> result, const std::string& code, const std::string& param) {
  if (!result.ok()) throw ApiFailure({.message = result.error().message, .code = code, .param = param});
  if constexpr (!std::is_void_v<T>) return std::move(result).value();
}

std::unique_lock<std::mutex> lock_or_refuse(std::mutex& mutex) {
  std::unique_lock lock(mutex, std::try_to_lock);
  if (!lock.owns_lock()) {
    throw ApiFailure({.status = 429,
                      .message = "another adapter is being loaded or unloaded; try again",
                      .type = "rate_limit_error",
                      .code = "busy",
                      .retry_after_s = 1});
  }
  return lock;
}

}  // namespace

ServedPool::ServedPool(Env& env, ServedPoolOptions options)
    : env_(env), options_(std::move(options)), library_(options_.library) {
  const bool needs_temporary = library_.empty() && (!options_.adapters.empty() || loads_adapters());
  if (needs_temporary || loads_adapters()) temporary_.emplace("skein-serve");
  if (needs_temporary) {
    library_ = *temporary_ / "library";
    const BaseModel base = or_throw(open_base_model(env_, options_.base));
    Library library = or_throw(create_library(env_, library_, base));
    for (const std::string& adapter : options_.adapters) {
      or_throw(add_expert(env_, library, base, adapter, {.allow_other_base = options_.allow_other_base}));
    }
  }
  stamp_ = stamp();
}

std::string ServedPool::stamp() const {
  if (library_.empty()) return "";
  const auto facts = env_.facts(join_path(library_, "library.json"));
  return facts.ok() ? concat(facts->inode, " ", facts->modified_ns, " ", facts->size_bytes) : "";
}

void ServedPool::load(Engine& engine, const AdapterRequest& request) {
  check_name(request.name);
  const auto lock = lock_or_refuse(mutex_);
  if (loaded_.size() >= static_cast<std::size_t>(options_.max_loaded)) {
    throw ApiFailure({.message = concat("there are ", loaded_.size(), " loaded adapters, as many as are allowed"),
                      .code = "adapter_limit_exceeded"});
  }
  for (const ModelName& model : engine.models()) {
    if (model.choice.name != request.name) continue;
    throw ApiFailure({.message = concat("The lora adapter '", request.name, "' has already been loaded."),
                      .code = "adapter_already_loaded",
                      .param = "lora_name"});
  }
  const std::string staging = *temporary_ / "staging";
  or_refuse(env_.remove_tree(staging), "storage_unavailable", "");
  or_refuse(stage_adapter(options_.adapter_folder, request.path, staging, options_.adapter_limits), "path_forbidden",
            "lora_path");
  const auto base = or_refuse(open_base_model(env_, options_.base), "storage_unavailable", "");
  Library library = or_refuse(open_library(env_, library_), "storage_unavailable", "");
  const AddOptions add{.name = request.name, .allow_other_base = options_.allow_other_base};
  const Status added = add_expert(env_, library, base, staging, add);
  static_cast<void>(env_.remove_tree(staging).ok());
  or_refuse(added, "invalid_adapter", "lora_path");
  try {
    engine.reload();
  } catch (const Failure& failure) {
    static_cast<void>(remove_expert(env_, library, request.name).ok());
    throw ApiFailure({.message = failure.what(), .code = "invalid_adapter", .param = "lora_path"});
  }
  loaded_.insert(request.name);
  stamp_ = stamp();
}

void ServedPool::unload(Engine& engine, const AdapterRequest& request) {
  check_name(request.name);
  const auto lock = lock_or_refuse(mutex_);
  if (loaded_.count(request.name) == 0) {
    throw ApiFailure(
        {.status = 404,
         .message = concat("The lora adapter '", request.name, "' cannot be found among those loaded at run time."),
         .code = "adapter_not_found",
         .param = "lora_name"});
  }
  Library library = or_refuse(open_library(env_, library_), "storage_unavailable", "");
  or_refuse(remove_expert(env_, library, request.name), "storage_unavailable", "");
  loaded_.erase(request.name);
  engine.reload();
  stamp_ = stamp();
}

std::string ServedPool::follow(Engine& engine) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return "";
  const std::string now = stamp();
  if (now == stamp_ || now.empty()) return "";
  stamp_ = now;
  try {
    engine.reload();
    return concat("the library ", library_, " has changed and was read again");
  } catch (const Failure& failure) {
    return concat("the library ", library_, " has changed and cannot be read, the old experts stay: ", failure.what());
  }
}

}  // namespace skein
