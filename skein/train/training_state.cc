#include "skein/train/training_state.h"

#include <cstring>
#include <map>

#include <ATen/ops/empty.h>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

constexpr const char* kFormat = "skein-training-state";
constexpr std::int64_t kVersion = 1;

Json report_to_json(const TrainReport& report) {
  Json json;
  json["first_loss"] = report.first_loss;
  json["last_loss"] = report.last_loss;
  json["best_step"] = report.best_step;
  json["best_valid_loss"] = report.best_valid_loss;
  json["target_tokens"] = report.target_tokens;
  json["tokens"] = report.tokens;
  json["inputs_cut"] = report.inputs_cut;
  json["seconds"] = report.seconds;
  return json;
}

Result<TrainReport> report_from_json(const Json& json, std::int64_t step, const std::string& path) {
  TrainReport report;
  report.steps = step;
  SKEIN_ASSIGN(report.first_loss, json_number(json, "first_loss", std::nullopt, path));
  SKEIN_ASSIGN(report.last_loss, json_number(json, "last_loss", std::nullopt, path));
  SKEIN_ASSIGN(report.best_step, json_integer(json, "best_step", std::nullopt, path));
  SKEIN_ASSIGN(report.best_valid_loss, json_number(json, "best_valid_loss", std::nullopt, path));
  SKEIN_ASSIGN(report.target_tokens, json_integer(json, "target_tokens", std::nullopt, path));
  SKEIN_ASSIGN(report.tokens, json_integer(json, "tokens", std::nullopt, path));
  SKEIN_ASSIGN(report.inputs_cut, json_integer(json, "inputs_cut", std::nullopt, path));
  SKEIN_ASSIGN(report.seconds, json_number(json, "seconds", std::nullopt, path));
  return report;
}

std::string metadata_value(const Checkpoint& file, const std::string& key) {
  for (const auto& [name, value] : file.metadata()) {
    if (name == key) return value;
  }
  return {};
}

// The tensors "PREFIX/NAME" of the file, one per name, shaped as `like`.
Result<std::vector<at::Tensor>> read_tensors(const Checkpoint& file, const std::string& prefix,
                                             const std::vector<std::string>& names,
                                             const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> tensors;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string name = concat(prefix, "/", names[i]);
    const TensorInfo* info = file.find(name);
    const Shape expected(like[i].sizes().begin(), like[i].sizes().end());
    if (info == nullptr || info->dtype != DType::kF32 || info->shape != expected) {
      return Error{concat(file.path(), ": the saved state has no F32 tensor ", printable(name), " of shape ",
                          to_string(expected), "; it is of another model or other target modules")};
    }
    at::Tensor tensor = at::empty(like[i].sizes(), at::kFloat);
    const std::span<std::byte> bytes(static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes());
    SKEIN_TRY(file.read(name, DType::kF32, bytes));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

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

std::string state_file(const std::string& folder) { return join_path(folder, "state.safetensors"); }
std::string log_file(const std::string& folder) { return join_path(folder, "log.jsonl"); }

Status check_identity(const Json& saved, const Json& now, const std::string& path) {
  return compare(saved, now, "", path);
}

Status save_training_state(Env& env, const std::string& folder, const TrainingState& state,
                           const std::vector<std::string>& names, const Json& identity) {
  std::vector<at::Tensor> on_cpu;  // keeps the views alive
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& prefix, const std::vector<at::Tensor>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      on_cpu.push_back(values[i].detach().cpu().contiguous());
      tensors.push_back({concat(prefix, "/", names[i]), view_of(on_cpu.back())});
    }
  };
  add("parameters", state.parameters);
  add("first_moments", state.first_moments);
  add("second_moments", state.second_moments);
  add("best", state.best);
  Json progress = report_to_json(state.report);
  progress["step"] = state.step;
  progress["num_threads"] = state.num_threads;
  const std::map<std::string, std::string> metadata{{"format", kFormat},
                                                    {"version", std::to_string(kVersion)},
                                                    {"identity", identity.dump()},
                                                    {"progress", progress.dump()}};
  return write_safetensors(env, state_file(folder), tensors, metadata);
}

Result<TrainingState> load_training_state(Env& env, const std::string& folder, const std::vector<std::string>& names,
                                          const std::vector<at::Tensor>& like, const Json& identity) {
  const std::string path = state_file(folder);
  SKEIN_ASSIGN(const auto file, open_safetensors(env, path));
  if (metadata_value(*file, "format") != kFormat || metadata_value(*file, "version") != std::to_string(kVersion)) {
    return Error{concat(path, ": this is not a training state of version ", kVersion,
                        "; it was written by another program or another version of this one")};
  }
  SKEIN_ASSIGN(const Json saved_identity, parse_json(metadata_value(*file, "identity"), concat(path, " (identity)")));
  SKEIN_TRY(check_identity(saved_identity, identity, path));
  SKEIN_ASSIGN(const Json progress, parse_json(metadata_value(*file, "progress"), concat(path, " (progress)")));

  TrainingState state;
  SKEIN_ASSIGN(state.step, json_integer(progress, "step", std::nullopt, path));
  SKEIN_ASSIGN(const std::int64_t num_threads, json_integer(progress, "num_threads", std::nullopt, path));
  state.num_threads = static_cast<int>(num_threads);
  SKEIN_ASSIGN(state.report, report_from_json(progress, state.step, path));
  SKEIN_ASSIGN(state.parameters, read_tensors(*file, "parameters", names, like));
  SKEIN_ASSIGN(state.first_moments, read_tensors(*file, "first_moments", names, like));
  SKEIN_ASSIGN(state.second_moments, read_tensors(*file, "second_moments", names, like));
  if (!names.empty() && file->find(concat("best/", names.front())) != nullptr) {
    SKEIN_ASSIGN(state.best, read_tensors(*file, "best", names, like));
  }
  return state;
}

}  // namespace skein
