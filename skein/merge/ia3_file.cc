#include "skein/merge/ia3_file.h"

#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"

namespace skein::merge {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kEnding = ".ia3_l";

Result<AdapterConfig> read_config(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, "adapter_config.json");
  SKEIN_ASSIGN(const Json json, read_json_file(env, path));
  return adapter_config_from_json(json, path);
}

}  // namespace

Result<AdapterKind> adapter_kind_of(Env& env, const std::string& folder) {
  SKEIN_ASSIGN(const AdapterConfig config, read_config(env, folder));
  return config.kind;
}

Result<Ia3File> read_ia3_file(Env& env, const std::string& folder) {
  Ia3File result;
  result.folder = folder;
  SKEIN_ASSIGN(result.config, read_config(env, folder));
  SKEIN_ASSIGN(const auto file,
               open_safetensors(env, join_path(folder, "adapter_model.safetensors"), adapter_limits()));
  for (const TensorInfo& info : file->tensors()) {
    std::string name = info.name;
    if (name.ends_with(".default")) name.resize(name.size() - std::string_view(".default").size());
    const bool is_vector = name.starts_with(kPrefix) && name.ends_with(kEnding) && info.shape.size() == 2 &&
                           (info.shape[0] == 1 || info.shape[1] == 1) && is_floating(info.dtype);
    if (!is_vector || name.size() <= kPrefix.size() + kEnding.size()) {
      return Error{concat(file->path(), ": ", printable(info.name), " ", to_string(info.shape),
                          " is no (IA)3 vector; base_model.model.<module>.ia3_l was expected")};
    }
    Ia3Vector vector{.shape = info.shape, .values = {}};
    vector.values.resize(static_cast<std::size_t>(info.shape[0] * info.shape[1]));
    SKEIN_TRY(file->read(info.name, DType::kF32, std::as_writable_bytes(std::span(vector.values))));
    if (!std::all_of(vector.values.begin(), vector.values.end(), [](float value) { return std::isfinite(value); })) {
      return Error{concat(file->path(), ": NaN or infinite values in ", printable(info.name))};
    }
    const std::string module = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kEnding.size());
    if (!result.modules.emplace(module, std::move(vector)).second) {
      return Error{concat(file->path(), ": two vectors for ", printable(module))};
    }
  }
  return result;
}

}  // namespace skein::merge
