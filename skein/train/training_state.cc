#include "skein/train/training_state.h"

#include <algorithm>
#include <map>

#include <ATen/ops/empty.h>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/io/digest.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

constexpr const char* kFormat = "skein-training-state";
constexpr std::int64_t kVersion = 2;

std::string metadata_value(const Checkpoint& file, const std::string& key) {
  for (const auto& [name, value] : file.metadata()) {
    if (name == key) return value;
  }
  return {};
}

// The tensor of the file, shaped as `like`.
Result<at::Tensor> read_tensor(const Checkpoint& file, const std::string& name, const at::Tensor& like) {
  const TensorInfo* info = file.find(name);
  const Shape expected(like.sizes().begin(), like.sizes().end());
  if (info == nullptr || info->dtype != DType::kF32 || info->shape != expected) {
    return Error{concat(file.path(), ": the saved state has no F32 tensor ", printable(name), " of shape ",
                        to_string(expected), "; it is of another model or other target modules")};
  }
  at::Tensor tensor = at::empty(like.sizes(), at::kFloat);
  const std::span<std::byte> bytes(static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes());
  SKEIN_TRY(file.read(name, DType::kF32, bytes));
  return tensor;
}

Result<std::vector<at::Tensor>> read_parameters(const Checkpoint& file, const std::string& prefix,
                                                const StateShape& shape) {
  std::vector<at::Tensor> tensors;
  for (std::size_t i = 0; i < shape.names.size(); ++i) {
    SKEIN_ASSIGN(at::Tensor tensor, read_tensor(file, concat(prefix, "/", shape.names[i]), shape.parameters[i]));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// Over names and values, in the order of the names, and what is said of the run.
std::string digest_of(std::vector<NamedTensor> tensors, const std::string& identity, const std::string& progress) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  Digest digest;
  digest.update(identity);
  digest.update(progress);
  for (const NamedTensor& tensor : tensors) {
    digest.update(tensor.name);
    digest.update(tensor.tensor.bytes);
  }
  return digest.hex();
}

Result<std::string> digest_of(const Checkpoint& file) {
  Digest digest;
  digest.update(metadata_value(file, "identity"));
  digest.update(metadata_value(file, "progress"));
  std::vector<std::byte> bytes;
  for (const TensorInfo& info : file.tensors()) {  // sorted by name
    bytes.resize(static_cast<std::size_t>(checked_numel(info.shape).value_or(0)) * sizeof(float));
    SKEIN_TRY(file.read(info.name, DType::kF32, bytes));
    digest.update(info.name);
    digest.update(std::span<const std::byte>(bytes));
  }
  return digest.hex();
}

// A state whose bytes are those that were written.
Result<std::unique_ptr<Checkpoint>> open_whole(Env& env, const std::string& path) {
  SKEIN_ASSIGN(auto file, open_safetensors(env, path));
  if (metadata_value(*file, "format") != kFormat || metadata_value(*file, "version") != std::to_string(kVersion)) {
    return Error{concat(path, ": this is not a training state of version ", kVersion,
                        "; it was written by another program or another version of this one")};
  }
  SKEIN_ASSIGN(const std::string digest, digest_of(*file));
  if (digest != metadata_value(*file, "digest")) {
    return Error{concat(path, ": its tensors have the digest ", digest, ", not the ",
                        printable(metadata_value(*file, "digest")), " that was written; the file is damaged")};
  }
  return file;
}

constexpr int kMaxAge = 1000;

// Nested objects are compared key by key, other values as a whole; where: the keys down to here.
Status compare(const Json& saved, const Json& now, const std::string& where, const std::string& path) {
  if (saved.is_object() && now.is_object()) {
    const auto under = [&](const std::string& key) { return where.empty() ? key : concat(where, ".", printable(key)); };
    for (const auto& [key, value] : now.items()) {
      SKEIN_TRY(compare(saved.contains(key) ? saved[key] : Json(), value, under(key), path));
    }
    for (const auto& [key, value] : saved.items()) {
      if (!now.contains(key)) SKEIN_TRY(compare(value, Json(), under(key), path));
    }
    return {};
  }
  if (saved == now) return {};
  const auto shown = [](const Json& value) {
    return value.is_null() ? std::string("absent") : printable(value.dump());
  };
  return Error{concat(path, ": cannot resume: ", where, " was ", shown(saved), " and is now ", shown(now),
                      "; give what the run began with, or start anew with --overwrite")};
}

}  // namespace

std::string state_file(const std::string& folder, int age) {
  return join_path(folder, age == 0 ? "state.safetensors" : concat("state.", age, ".safetensors"));
}
std::string log_file(const std::string& folder) { return join_path(folder, "log.jsonl"); }

bool has_state(Env& env, const std::string& folder) {
  // A crash between two renames may leave the newest state under the older name.
  return env.exists(state_file(folder)) || env.exists(state_file(folder, 1));
}

Status check_identity(const Json& saved, const Json& now, const std::string& path) {
  return compare(saved, now, "", path);
}

Status save_training_state(Env& env, const std::string& folder, const TrainingState& state,
                           const std::vector<std::string>& names, const Json& identity, int keep) {
  std::vector<at::Tensor> on_cpu;  // keeps the views alive
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& value) {
    on_cpu.push_back(value.detach().cpu().contiguous());
    tensors.push_back({name, view_of(on_cpu.back())});
  };
  for (std::size_t i = 0; i < names.size(); ++i) add("parameters/" + names[i], state.parameters[i]);
  for (const NamedState& moment : state.optimiser) add(moment.name, moment.tensor);
  for (std::size_t i = 0; i < state.best.size(); ++i) add("best/" + names[i], state.best[i]);
  Json progress = report_to_json(state.report);
  progress["num_threads"] = state.num_threads;
  progress["num_ranks"] = state.num_ranks;
  const std::string identity_text = identity.dump(), progress_text = progress.dump();
  const std::map<std::string, std::string> metadata{{"format", kFormat},
                                                    {"version", std::to_string(kVersion)},
                                                    {"digest", digest_of(tensors, identity_text, progress_text)},
                                                    {"identity", identity_text},
                                                    {"progress", progress_text}};
  // Whole under a name of its own before any older state moves.
  const std::string fresh = join_path(folder, "state.new.safetensors");
  SKEIN_TRY(write_safetensors(env, fresh, tensors, metadata));
  for (int age = keep - 1; age >= 1; --age) {
    const std::string younger = state_file(folder, age - 1);
    if (env.exists(younger)) SKEIN_TRY(env.rename(younger, state_file(folder, age)));
  }
  SKEIN_TRY(env.rename(fresh, state_file(folder)));
  return env.sync_folder(folder);
}

Result<TrainingState> load_training_state(Env& env, const std::string& folder, const StateShape& shape,
                                          const Json& identity) {
  std::unique_ptr<Checkpoint> file;
  std::string damage;
  for (int age = 0; age <= kMaxAge && file == nullptr; ++age) {
    const std::string path = state_file(folder, age);
    if (!env.exists(path)) {
      if (age >= 1) break;
      continue;
    }
    auto opened = open_whole(env, path);
    if (opened.ok()) {
      file = std::move(*opened);
      if (!damage.empty()) log_warning(concat(damage, "; going on from the state before it, ", path));
    } else {
      damage += concat(damage.empty() ? "" : "; ", opened.error().message);
    }
  }
  if (file == nullptr) return Error{damage.empty() ? concat(folder, ": no saved state") : damage};
  const std::string& path = file->path();
  SKEIN_ASSIGN(const Json saved_identity, parse_json(metadata_value(*file, "identity"), concat(path, " (identity)")));
  SKEIN_TRY(check_identity(saved_identity, identity, path));
  SKEIN_ASSIGN(const Json progress, parse_json(metadata_value(*file, "progress"), concat(path, " (progress)")));

  TrainingState state;
  SKEIN_ASSIGN(const std::int64_t num_threads, json_integer(progress, "num_threads", std::nullopt, path));
  SKEIN_ASSIGN(const std::int64_t num_ranks, json_integer(progress, "num_ranks", std::nullopt, path));
  state.num_threads = static_cast<int>(num_threads);
  state.num_ranks = static_cast<int>(num_ranks);
  SKEIN_ASSIGN(state.report, report_from_json(progress, path));
  SKEIN_ASSIGN(state.parameters, read_parameters(*file, "parameters", shape));
  for (const NamedState& moment : shape.optimiser) {
    SKEIN_ASSIGN(at::Tensor tensor, read_tensor(*file, moment.name, moment.tensor));
    state.optimiser.push_back({moment.name, std::move(tensor)});
  }
  if (!shape.names.empty() && file->find(concat("best/", shape.names.front())) != nullptr) {
    SKEIN_ASSIGN(state.best, read_parameters(*file, "best", shape));
  }
  return state;
}

}  // namespace skein
