#include "skein/merge/manifest.h"

#include <algorithm>
#include <set>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/io/digest.h"
#include "skein/io/safetensors.h"

namespace skein::merge {
namespace {

constexpr char kFormat[] = "skein-merge-1";

Json json_of(const ParameterSpec& spec, const MethodParameters& parameters, int model) {
  switch (spec.kind) {
    case ParameterSpec::Kind::kNumber:
      return spec.scope == ParameterSpec::Scope::kGlobal ? parameters.number(spec.name)
                                                         : parameters.number(spec.name, model);
    case ParameterSpec::Kind::kBool:
      return parameters.flag(spec.name);
    case ParameterSpec::Kind::kChoice:
      return std::string(parameters.choice(spec.name));
  }
  return nullptr;
}

// Global values by name, per-model values as lists in the order of the models (null: not given).
Json parameters_of(const Plan& plan, const TensorJob& job) {
  Json json = Json::object();
  for (const auto& spec : plan.method->parameters) {
    if (spec.scope == ParameterSpec::Scope::kGlobal) {
      if (job.parameters->has(spec.name)) json[spec.name] = json_of(spec, *job.parameters, 0);
      continue;
    }
    Json values = Json::array();
    bool any = false;
    for (int model = 0; model < job.num_models; ++model) {
      const bool has = job.parameters->has(spec.name, model);
      any = any || has;
      values.push_back(has ? json_of(spec, *job.parameters, model) : Json());
    }
    if (any) json[spec.name] = std::move(values);
  }
  return json;
}

Json inputs_of(const Plan& plan) {
  Json inputs = Json::array();
  for (const auto& source : plan.sources) {
    Json files = Json::object();
    for (const auto& file : source->files) {
      files[base_name(file.path)] = {{"bytes", file.facts.size_bytes}, {"header", file.header_digest}};
    }
    inputs.push_back({{"model", source->ref.text()}, {"files", std::move(files)}});
  }
  return inputs;
}

// Equal parameters of many tensors stand once: "parameters" holds the sets, a tensor the number of its own.
Json tensors_of(const Plan& plan, const std::vector<TensorRecord>& records, Json& parameter_sets) {
  Json tensors = Json::object();
  std::map<std::string, std::size_t> known;
  parameter_sets = Json::array();
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const auto& tensor = plan.tensors[i];
    Json entry{{"file", plan.files[static_cast<std::size_t>(tensor.file)].name},
               {"dtype", dtype_name(tensor.dtype)},
               {"shape", tensor.shape},
               {"digest", records[i].digest},
               {"piece_bytes", records[i].piece_bytes}};
    if (records[i].num_nonfinite > 0) entry["nonfinite"] = records[i].num_nonfinite;
    if (tensor.is_copy) {
      entry["copied_from"] = plan.sources[static_cast<std::size_t>(tensor.model_sources[0])]->ref.text();
    } else {
      Json parameters = parameters_of(plan, plan.jobs[static_cast<std::size_t>(tensor.job)]);
      const auto [place, fresh] = known.emplace(parameters.dump(), known.size());
      if (fresh) parameter_sets.push_back(std::move(parameters));
      entry["parameters"] = place->second;
    }
    tensors[tensor.name] = std::move(entry);
  }
  return tensors;
}

Json dropped_of(const Plan& plan) {
  Json dropped = Json::array();
  for (const auto& tensor : plan.dropped) {
    dropped.push_back({{"model", tensor.model}, {"tensor", tensor.name}, {"why", tensor.why}});
  }
  return dropped;
}

Result<std::string> digest_of_part(const ReadableFile& file, std::uint64_t offset, std::uint64_t num_bytes) {
  constexpr std::uint64_t kChunk = 1 << 20;
  std::vector<std::byte> chunk(std::min(num_bytes, kChunk));
  Digest digest;
  while (num_bytes > 0) {
    const auto part = std::span(chunk).first(std::min<std::uint64_t>(num_bytes, kChunk));
    SKEIN_TRY(file.read_at(offset, part));
    digest.update(part);
    offset += part.size();
    num_bytes -= part.size();
  }
  return digest.hex();
}

// Digests of a folder's files, but of those that stand elsewhere in the manifest.
Result<Json> files_of(Env& env, const std::string& folder, const std::set<std::string>& others) {
  Json files = Json::object();
  SKEIN_ASSIGN(const auto names, env.list(folder));
  for (const auto& name : names) {
    if (others.contains(name) || name == kManifestName || !is_safe_file_name(name)) continue;
    const std::string path = join_path(folder, name);
    SKEIN_ASSIGN(const FileFacts facts, env.facts(path));
    if (facts.is_folder) continue;
    SKEIN_ASSIGN(files[name], digest_of_file(env, path));
  }
  return files;
}

std::string recorded_word(Env& env, const std::string& folder, const char* key) {
  const std::string path = join_path(folder, kManifestName);
  if (!env.exists(path)) return {};
  const auto manifest = read_json_file(env, path);
  if (!manifest.ok() || !manifest->is_object() || manifest->value("format", "") != kFormat) return {};
  const auto word = json_string(*manifest, key, "", path);
  return word.ok() ? *word : std::string();
}

// ---- verify ----

struct Recorded {
  std::string name, file, dtype, digest;
  Shape shape;
  std::int64_t piece_bytes = 1;
};

Result<std::vector<Recorded>> recorded_tensors(const Json& manifest, const std::string& path) {
  const auto tensors = manifest.find("tensors");
  if (tensors == manifest.end() || !tensors->is_object()) return Error{concat(path, ": \"tensors\" is missing")};
  std::vector<Recorded> recorded;
  for (const auto& [name, entry] : tensors->items()) {
    const std::string where = concat(path, ": tensor ", printable(name));
    if (!entry.is_object()) return Error{concat(where, " is not an object")};
    Recorded one;
    one.name = name;
    SKEIN_ASSIGN(one.file, json_string(entry, "file", std::nullopt, where));
    SKEIN_ASSIGN(one.dtype, json_string(entry, "dtype", std::nullopt, where));
    SKEIN_ASSIGN(one.digest, json_string(entry, "digest", std::nullopt, where));
    SKEIN_ASSIGN(one.piece_bytes, json_integer(entry, "piece_bytes", std::nullopt, where));
    if (one.piece_bytes < 1) return Error{concat(where, ": piece_bytes is ", one.piece_bytes)};
    if (!is_safe_file_name(one.file)) return Error{concat(where, ": \"", printable(one.file), "\" is no file name")};
    const auto shape = entry.find("shape");
    if (shape == entry.end() || !shape->is_array()) return Error{concat(where, ": \"shape\" is missing")};
    for (const auto& size : *shape) {
      if (!size.is_number_integer()) return Error{concat(where, ": \"shape\" is not a list of integers")};
      one.shape.push_back(size.get<std::int64_t>());
    }
    recorded.push_back(std::move(one));
  }
  return recorded;
}

// A file of weights, as far as it can be opened.
struct OpenedFile {
  std::unique_ptr<Checkpoint> weights;
  std::unique_ptr<ReadableFile> file;
  std::string fault;
};

OpenedFile open_weights(Env& env, const std::string& path) {
  OpenedFile opened;
  auto weights = open_safetensors(env, path);
  auto file = env.open(path);
  if (!weights.ok() || !file.ok()) {
    opened.fault = !weights.ok() ? weights.error().message : file.error().message;
    return opened;
  }
  opened.weights = std::move(*weights);
  opened.file = std::move(*file);
  return opened;
}

// What is wrong with one tensor; empty: nothing.
Result<std::string> difference_of(const OpenedFile& opened, const Recorded& recorded, std::uint64_t& num_bytes) {
  if (opened.weights == nullptr) return opened.fault;
  const TensorInfo* info = opened.weights->find(recorded.name);
  if (info == nullptr) return concat("is not in ", recorded.file);
  if (info->shape != recorded.shape || info->stored_as != recorded.dtype) {
    return concat("is ", info->stored_as, " ", to_string(info->shape), " in ", recorded.file, "; ", recorded.dtype, " ",
                  to_string(recorded.shape), " was written");
  }
  const auto location = opened.weights->location(recorded.name);
  SKEIN_CHECK(location.has_value());
  num_bytes = static_cast<std::uint64_t>(checked_numel(info->shape).value_or(0) * dtype_size(info->dtype));
  SKEIN_ASSIGN(const bool same,
               has_digest(*opened.file, location->offset, num_bytes, recorded.digest, recorded.piece_bytes));
  return same ? std::string() : concat("holds other bytes in ", recorded.file, " than were written");
}

Status verify_files(Env& env, const std::string& folder, const Json& manifest, const std::string& path,
                    VerifyReport& report) {
  const auto files = manifest.find("files");
  if (files == manifest.end() || !files->is_object()) return Error{concat(path, ": \"files\" is missing")};
  for (const auto& [name, digest] : files->items()) {
    if (!is_safe_file_name(name) || !digest.is_string())
      return Error{concat(path, ": \"files\" is not a list of digests")};
    const auto found = digest_of_file(env, join_path(folder, name));
    if (!found.ok()) {
      report.differences.push_back(concat("file ", name, ": ", found.error().message));
    } else if (*found != digest.get_ref<const std::string&>()) {
      report.differences.push_back(concat("file ", name, " holds other bytes than were written"));
    }
  }
  return {};
}

}  // namespace

Result<Json> make_manifest(Env& env, const std::string& folder, const Plan& plan, const std::string& recipe_text,
                           const std::vector<TensorRecord>& records, const std::string& version) {
  SKEIN_CHECK(records.size() == plan.tensors.size());
  Json manifest{{"format", kFormat},         {"skein", version},      {"method", plan.method->name},
                {"seed", plan.options.seed}, {"recipe", recipe_text}, {"plan", plan.digest},
                {"inputs", inputs_of(plan)}};
  Json parameter_sets;
  Json tensors = tensors_of(plan, records, parameter_sets);
  manifest["parameters"] = std::move(parameter_sets);
  manifest["tensors"] = std::move(tensors);
  manifest["dropped"] = dropped_of(plan);
  std::set<std::string> weights;
  for (const auto& file : plan.files) {
    if (file.is_weights) weights.insert(file.name);
  }
  SKEIN_ASSIGN(manifest["files"], files_of(env, folder, weights));
  return manifest;
}

Result<Json> make_adapter_manifest(Env& env, const std::string& folder, const Recipe& recipe,
                                   const std::string& recipe_text, std::uint64_t seed, const std::string& plan_digest,
                                   const std::vector<std::pair<std::string, std::string>>& adapters,
                                   const std::string& version) {
  Json inputs = Json::array();
  for (const auto& [model, digest] : adapters) inputs.push_back({{"model", model}, {"digest", digest}});
  Json manifest{{"format", kFormat},
                {"skein", version},
                {"method", recipe.merge_method},
                {"seed", seed},
                {"recipe", recipe_text},
                {"plan", plan_digest},
                {"inputs", std::move(inputs)},
                {"parameters", Json::array()},
                {"tensors", Json::object()},
                {"dropped", Json::array()}};
  SKEIN_ASSIGN(manifest["files"], files_of(env, folder, {}));
  return manifest;
}

std::string plan_digest_of(Env& env, const std::string& folder) { return recorded_word(env, folder, "plan"); }
std::string stages_digest_of(Env& env, const std::string& folder) { return recorded_word(env, folder, "stages"); }

Result<bool> has_digest(const ReadableFile& file, std::uint64_t offset, std::uint64_t num_bytes,
                        const std::string& digest, std::int64_t piece_bytes) {
  const auto piece = static_cast<std::uint64_t>(piece_bytes);
  const std::uint64_t num_pieces = num_bytes == 0 ? 0 : (num_bytes - 1) / piece + 1;
  std::vector<std::string> digests(num_pieces);
  std::vector<Status> statuses(num_pieces);
  parallel_for(static_cast<std::int64_t>(num_pieces), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::uint64_t>(begin); i < static_cast<std::uint64_t>(end); ++i) {
      auto found = digest_of_part(file, offset + i * piece, std::min(piece, num_bytes - i * piece));
      if (found.ok())
        digests[i] = std::move(*found);
      else
        statuses[i] = found.error();
    }
  });
  for (const auto& status : statuses) SKEIN_TRY(status);
  return digest_of_pieces(digests) == digest;
}

Result<VerifyReport> verify_output(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, kManifestName);
  if (!env.exists(path)) return Error{concat(folder, " has no ", kManifestName, "; was it written by skein merge?")};
  SKEIN_ASSIGN(const Json manifest, read_json_file(env, path));
  if (!manifest.is_object() || manifest.value("format", "") != kFormat) {
    return Error{concat(path, ": the format ", kFormat, " was expected")};
  }
  SKEIN_ASSIGN(const auto recorded, recorded_tensors(manifest, path));
  VerifyReport report;
  std::map<std::string, OpenedFile> opened;
  std::map<std::string, std::set<std::string>> names;
  for (const auto& one : recorded) {
    if (!opened.contains(one.file)) opened.emplace(one.file, open_weights(env, join_path(folder, one.file)));
    std::uint64_t num_bytes = 0;
    SKEIN_ASSIGN(const std::string difference, difference_of(opened.at(one.file), one, num_bytes));
    if (!difference.empty()) report.differences.push_back(concat("tensor ", printable(one.name), " ", difference));
    report.num_bytes += num_bytes;
    ++report.num_tensors;
    names[one.file].insert(one.name);
  }
  for (const auto& [file, open] : opened) {
    if (open.weights == nullptr) continue;
    for (const auto& info : open.weights->tensors()) {
      if (names[file].contains(info.name)) continue;
      report.differences.push_back(concat("tensor ", printable(info.name), " of ", file, " was never written"));
    }
  }
  SKEIN_TRY(verify_files(env, folder, manifest, path, report));
  return report;
}

}  // namespace skein::merge
