#include "skein/io/safetensors.h"

#include <algorithm>
#include <functional>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/io/convert_elements.h"
#include "skein/io/json.h"
#include "skein/io/safetensors_header.h"

namespace skein {
namespace {

const char kSingleName[] = "model.safetensors";
const char kIndexName[] = "model.safetensors.index.json";

struct ShardMap {
  std::string path;
  std::shared_ptr<const MappedFile> map;
};

// Named views into maps that it holds: one file's, or all shards'.
class SafetensorsCheckpoint : public Checkpoint {
 public:
  SafetensorsCheckpoint(std::string path, std::vector<ShardMap> maps, SafetensorsHeader header)
      : path_(std::move(path)), maps_(std::move(maps)), header_(std::move(header)) {
    infos_.reserve(header_.tensors.size());
    for (const auto& [name, view] : header_.tensors) {
      infos_.push_back({name, view.dtype, view.shape, std::string(dtype_name(view.dtype))});
    }
  }

  const std::string& path() const override { return path_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto index = index_of(name);
    return index ? &infos_[*index] : nullptr;
  }
  Status read(const std::string& name, DType dtype, std::span<std::byte> out) const override {
    const auto index = index_of(name);
    if (!index) return Error{concat(path_, " has no tensor \"", printable(name), "\"")};
    const TensorView& stored = header_.tensors[*index].tensor;
    auto converted = convert_elements(stored, dtype, out);
    if (!converted.ok()) return Error{concat(path_, ": tensor \"", printable(name), "\": ", converted.error().message)};
    shard_of(stored).map->release(stored.bytes);
    return {};
  }
  std::optional<TensorView> view(const std::string& name) const override {
    const auto index = index_of(name);
    if (!index) return std::nullopt;
    return header_.tensors[*index].tensor;
  }
  std::optional<TensorLocation> location(const std::string& name) const override {
    const auto index = index_of(name);
    if (!index) return std::nullopt;
    const TensorView& stored = header_.tensors[*index].tensor;
    const ShardMap& shard = shard_of(stored);
    return TensorLocation{shard.path, static_cast<std::uint64_t>(stored.bytes.data() - shard.map->bytes().data())};
  }
  const std::vector<std::pair<std::string, std::string>>& metadata() const override { return header_.metadata; }

 private:
  // The file that a tensor's bytes lie in.
  const ShardMap& shard_of(const TensorView& stored) const {
    const std::less_equal<const std::byte*> not_after;
    for (const ShardMap& shard : maps_) {
      const auto bytes = shard.map->bytes();
      if (not_after(bytes.data(), stored.bytes.data()) && not_after(stored.bytes.data(), bytes.data() + bytes.size())) {
        return shard;
      }
    }
    check_failed("a tensor's bytes lie in one of its maps", __FILE__, __LINE__);
  }
  std::optional<std::size_t> index_of(const std::string& name) const {
    const auto found =
        std::lower_bound(header_.tensors.begin(), header_.tensors.end(), name,
                         [](const NamedTensor& tensor, const std::string& key) { return tensor.name < key; });
    if (found == header_.tensors.end() || found->name != name) return std::nullopt;
    return static_cast<std::size_t>(found - header_.tensors.begin());
  }

  std::string path_;
  std::vector<ShardMap> maps_;
  SafetensorsHeader header_;       // tensors sorted by name
  std::vector<TensorInfo> infos_;  // the same order
};

// The index's weight_map: shard file -> names of its tensors.
Result<std::map<std::string, std::vector<std::string>>> shards_of_index(Env& env, const std::string& index_path) {
  SKEIN_ASSIGN(const Json index, read_json_file(env, index_path));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return Error{concat(index_path, ": \"weight_map\" is missing or not an object")};
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string()) {
      return Error{concat(index_path, ": the shard of \"", printable(name), "\" is ", file.type_name(),
                          "; a file name was expected")};
    }
    const auto& file_name = file.get_ref<const std::string&>();
    if (!is_safe_file_name(file_name)) {
      return Error{concat(index_path, ": the shard of \"", printable(name), "\" is \"", printable(file_name),
                          "\"; the plain name of a file in the same folder was expected")};
    }
    shards[file_name].push_back(name);
  }
  if (shards.empty()) return Error{concat(index_path, ": \"weight_map\" is empty")};
  return shards;
}

Result<std::unique_ptr<Checkpoint>> open_sharded(Env& env, const std::string& folder) {
  const std::string index_path = join_path(folder, kIndexName);
  SKEIN_ASSIGN(const auto shards, shards_of_index(env, index_path));
  SafetensorsHeader joined;
  std::vector<ShardMap> maps;
  std::map<std::string, std::string> shard_of;  // of every tensor in any shard
  for (const auto& [file_name, wanted] : shards) {
    const std::string path = join_path(folder, file_name);
    if (!env.exists(path))
      return Error{concat(index_path, ": shard ", file_name, " is missing; was the download complete?")};
    SKEIN_ASSIGN(auto map, env.map(path));
    SKEIN_ASSIGN(auto header, parse_safetensors(map->bytes(), path, {}));
    for (const auto& tensor : header.tensors) {
      const auto [other, fresh] = shard_of.emplace(tensor.name, file_name);
      if (!fresh) {
        return Error{concat(index_path, ": tensor \"", printable(tensor.name), "\" lies in two shards, ", other->second,
                            " and ", file_name)};
      }
    }
    for (const auto& name : wanted) {
      const auto found = shard_of.find(name);
      if (found == shard_of.end() || found->second != file_name) {
        return Error{concat(index_path, ": tensor \"", printable(name), "\" is not in shard ", file_name,
                            ", where the index has it")};
      }
    }
    if (maps.empty()) joined.metadata = std::move(header.metadata);
    // A tensor that no line of the index names is still part of the model: transformers loads it too.
    std::move(header.tensors.begin(), header.tensors.end(), std::back_inserter(joined.tensors));
    maps.push_back({path, std::move(map)});
  }
  std::sort(joined.tensors.begin(), joined.tensors.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  return std::unique_ptr<Checkpoint>(new SafetensorsCheckpoint(folder, std::move(maps), std::move(joined)));
}

}  // namespace

SafetensorsLimits adapter_limits() { return {.max_header_bytes = 8 << 20, .max_tensors = 20'000}; }

Result<std::unique_ptr<Checkpoint>> open_safetensors(Env& env, const std::string& path,
                                                     const SafetensorsLimits& limits) {
  SKEIN_ASSIGN(auto map, env.map(path));
  SKEIN_ASSIGN(auto header, parse_safetensors(map->bytes(), path, limits));
  std::vector<ShardMap> maps{{path, std::move(map)}};
  return std::unique_ptr<Checkpoint>(new SafetensorsCheckpoint(path, std::move(maps), std::move(header)));
}

Result<std::unique_ptr<Checkpoint>> open_safetensors_folder(Env& env, const std::string& folder) {
  const std::string single = join_path(folder, kSingleName);
  if (env.exists(single)) return open_safetensors(env, single);
  if (env.exists(join_path(folder, kIndexName))) return open_sharded(env, folder);
  std::string error = concat(folder, " holds neither ", kSingleName, " nor ", kIndexName);
  for (const char* pickled : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (env.exists(join_path(folder, pickled))) {
      error += concat("; its ", pickled, " is pickled: turn it into safetensors with `skein convert IN OUT`");
      break;
    }
  }
  return Error{error};
}

}  // namespace skein
