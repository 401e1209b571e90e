// A library on disk. Each change writes what it adds first and library.json last (or first, when something goes), so
// that a killed process leaves at worst an unlisted folder, which check names and the next add of that name replaces.
#include "skein/spec/library.h"

#include <algorithm>
#include <set>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/io/json.h"
#include "skein/io/output_folder.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

constexpr std::int64_t kFormatVersion = 1;

std::string manifest_path(const std::string& library) { return join_path(library, "library.json"); }

// "gates/phatgoose.safetensors": safe components, at most one folder deep.
bool is_safe_relative_path(const std::string& path) {
  const std::size_t slash = path.find('/');
  if (slash == std::string::npos) return is_safe_file_name(path);
  return is_safe_file_name(path.substr(0, slash)) && is_safe_file_name(path.substr(slash + 1));
}

Json to_json(const Library& library) {
  Json experts = Json::array();
  for (const LibraryEntry& entry : library.experts) {
    Json files = Json::object();
    for (const auto& [file, digest] : entry.digests) files[file] = digest;
    experts.push_back({{"name", entry.name}, {"files", std::move(files)}});
  }
  return {{"format_version", library.format_version},
          {"base_fingerprint", library.base_fingerprint},
          {"base_hint", library.base_hint},
          {"experts", std::move(experts)}};
}

Status write_manifest(Env& env, const Library& library) {
  return write_text_atomically(env, manifest_path(library.path), to_json(library).dump(2) + "\n");
}

Result<LibraryEntry> entry_from_json(const Json& json, const std::string& path) {
  LibraryEntry entry;
  if (!json.is_object()) return Error{concat(path, ": an expert is not an object")};
  SKEIN_ASSIGN(entry.name, json_string(json, "name", std::nullopt, path));
  if (!is_safe_file_name(entry.name)) {
    return Error{concat(path, ": expert name \"", printable(entry.name),
                        "\" is no plain folder name; the file is damaged or hostile")};
  }
  const auto files = json.find("files");
  if (files == json.end() || !files->is_object())
    return Error{concat(path, ": expert ", entry.name, " has no object \"files\"")};
  for (const auto& [file, digest] : files->items()) {
    if (!is_safe_relative_path(file) || !digest.is_string()) {
      return Error{concat(path, ": expert ", entry.name, " lists the file \"", printable(file),
                          "\"; expected a plain name with a digest")};
    }
    entry.digests.emplace_back(file, digest.get<std::string>());
  }
  return entry;
}

// Files of an expert's folder that belong to it, sorted; everything else (optimiser states, READMEs) stays behind.
std::vector<std::string> expert_files(Env& env, const std::string& folder) {
  std::vector<std::string> files = {"adapter_config.json", "adapter_model.safetensors"};
  if (env.exists(join_path(folder, "card.json"))) files.push_back("card.json");
  if (env.exists(join_path(folder, "texts.safetensors"))) files.push_back("texts.safetensors");
  for (const std::string& kind : gate_kinds(env, folder)) files.push_back(concat("gates/", kind, ".safetensors"));
  return files;
}

Status copy_file(Env& env, const std::string& from, const std::string& to) {
  SKEIN_ASSIGN(const std::shared_ptr<const MappedFile> source, env.map(from));
  SKEIN_ASSIGN(const std::unique_ptr<WritableFile> target, env.create(to));
  SKEIN_TRY(target->append(source->bytes()));
  SKEIN_TRY(target->sync());
  return target->close();
}

// Of card and gates: which base they say they belong to, and that they can be read at all.
Status check_expert_base(Env& env, const Library& library, const std::string& folder,
                         const std::vector<SlotName>& slots, bool allow_other_base) {
  const auto check = [&](const std::string& file, const std::string& fingerprint) -> Status {
    if (fingerprint.empty() || fingerprint == library.base_fingerprint || allow_other_base) return {};
    return Error{concat(folder, "/", file, ": made on the base with fingerprint ", printable(fingerprint),
                        "; the library's base has ", library.base_fingerprint,
                        "; an expert of another base (--allow-other-base to insist)")};
  };
  SKEIN_ASSIGN(const Json card, read_card(env, folder));
  SKEIN_ASSIGN(const std::string of_card, json_string(card, "base_fingerprint", "", join_path(folder, "card.json")));
  SKEIN_TRY(check("card.json", of_card));
  for (const std::string& kind : gate_kinds(env, folder)) {
    SKEIN_ASSIGN(const GateFile gate, read_gate(env, folder, kind, slots));
    SKEIN_TRY(check(concat("gates/", kind, ".safetensors"), gate.base_fingerprint));
  }
  return {};
}

std::string name_of_folder(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return base_name(folder);
}

}  // namespace

Result<Library> create_library(Env& env, const std::string& path, const BaseModel& base) {
  if (env.exists(path)) return Error{concat(path, ": exists already; a library is created in a new folder")};
  Library library;
  library.path = path;
  library.base_hint = base.path;
  SKEIN_ASSIGN(library.base_fingerprint, base_fingerprint(env, base));
  SKEIN_ASSIGN(const std::unique_ptr<OutputFolder> folder, OutputFolder::begin(env, path, false));
  SKEIN_TRY(env.make_folders(join_path(folder->path(), "experts")));
  SKEIN_TRY(write_text_atomically(env, manifest_path(folder->path()), to_json(library).dump(2) + "\n"));
  SKEIN_TRY(folder->commit());
  return library;
}

Result<Library> open_library(Env& env, const std::string& path) {
  const std::string manifest = manifest_path(path);
  if (!env.exists(manifest))
    return Error{concat(path, ": no library.json; expected a folder made by skein library create")};
  SKEIN_ASSIGN(const Json json, read_json_file(env, manifest));
  if (!json.is_object()) return Error{concat(manifest, ": not a JSON object")};
  Library library;
  library.path = path;
  SKEIN_ASSIGN(const std::int64_t version, json_integer(json, "format_version", std::nullopt, manifest));
  if (version != kFormatVersion) {
    return Error{concat(manifest, ": format version ", version, "; this program reads ", kFormatVersion,
                        "; made by a newer one?")};
  }
  SKEIN_ASSIGN(library.base_fingerprint, json_string(json, "base_fingerprint", std::nullopt, manifest));
  SKEIN_ASSIGN(library.base_hint, json_string(json, "base_hint", "", manifest));
  const auto experts = json.find("experts");
  if (experts == json.end() || !experts->is_array()) return Error{concat(manifest, ": no list \"experts\"")};
  std::set<std::string> names;
  for (const Json& expert : *experts) {
    SKEIN_ASSIGN(LibraryEntry entry, entry_from_json(expert, manifest));
    if (!names.insert(entry.name).second) return Error{concat(manifest, ": expert ", entry.name, " is listed twice")};
    library.experts.push_back(std::move(entry));
  }
  return library;
}

Status add_expert(Env& env, Library& library, const BaseModel& base, const std::string& expert_folder,
                  const AddOptions& options) {
  const std::string name = options.name.empty() ? name_of_folder(expert_folder) : options.name;
  if (!is_safe_file_name(name)) {
    return Error{concat("expert name \"", printable(name), "\" is no plain folder name; give one with --name"),
                 ErrorKind::kUsage};
  }
  const bool listed = std::any_of(library.experts.begin(), library.experts.end(),
                                  [&](const auto& entry) { return entry.name == name; });
  if (listed)
    return Error{concat(library.path, ": has an expert ", name, " already; remove it first or give another --name")};
  SKEIN_ASSIGN(const std::string fingerprint, base_fingerprint(env, base));
  if (fingerprint != library.base_fingerprint && !options.allow_other_base) {
    return Error{concat(base.path, ": has fingerprint ", fingerprint, "; the library ", library.path, " is of base ",
                        library.base_fingerprint,
                        library.base_hint.empty() ? "" : concat(" (", printable(library.base_hint), ")"),
                        "; another base (--allow-other-base to insist)")};
  }
  const std::vector<SlotName> slots = slot_names(base.config);
  SKEIN_ASSIGN(const LoraAdapter adapter, read_adapter(env, expert_folder, slots));
  SKEIN_TRY(check_expert_base(env, library, expert_folder, slots, options.allow_other_base));

  // overwrite: only an unlisted leftover of a killed add can be there.
  SKEIN_ASSIGN(const std::unique_ptr<OutputFolder> folder, OutputFolder::begin(env, library.folder_of(name), true));
  LibraryEntry entry;
  entry.name = name;
  for (const std::string& file : expert_files(env, expert_folder)) {
    const std::string copy = join_path(folder->path(), file);
    SKEIN_TRY(env.make_folders(parent_folder(copy)));
    SKEIN_TRY(copy_file(env, join_path(expert_folder, file), copy));
    SKEIN_ASSIGN(std::string digest, digest_of_file(env, copy));
    entry.digests.emplace_back(file, std::move(digest));
  }
  SKEIN_TRY(folder->commit());
  library.experts.push_back(std::move(entry));
  const Status written = write_manifest(env, library);
  if (!written.ok()) library.experts.pop_back();
  return written;
}

Status remove_expert(Env& env, Library& library, const std::string& name) {
  const auto it = std::find_if(library.experts.begin(), library.experts.end(),
                               [&](const auto& entry) { return entry.name == name; });
  if (it == library.experts.end()) {
    return Error{concat(library.path, ": no expert \"", printable(name), "\"; skein library list shows their names"),
                 ErrorKind::kUsage};
  }
  Library rest = library;
  rest.experts.erase(rest.experts.begin() + (it - library.experts.begin()));
  SKEIN_TRY(write_manifest(env, rest));
  library = std::move(rest);
  return env.remove_tree(library.folder_of(name));
}

Status record_files(Env& env, Library& library, const std::string& name) {
  const auto it = std::find_if(library.experts.begin(), library.experts.end(),
                               [&](const auto& entry) { return entry.name == name; });
  if (it == library.experts.end())
    return Error{concat(library.path, ": no expert \"", printable(name), "\""), ErrorKind::kUsage};
  std::vector<std::pair<std::string, std::string>> digests;
  for (const std::string& file : expert_files(env, library.folder_of(name))) {
    SKEIN_ASSIGN(std::string digest, digest_of_file(env, join_path(library.folder_of(name), file)));
    digests.emplace_back(file, std::move(digest));
  }
  std::swap(it->digests, digests);
  const Status written = write_manifest(env, library);
  if (!written.ok()) std::swap(it->digests, digests);
  return written;
}

Result<std::vector<std::string>> check_library(Env& env, const Library& library) {
  std::vector<std::string> differences;
  std::set<std::string> listed;
  for (const LibraryEntry& entry : library.experts) {
    listed.insert(entry.name);
    const std::string folder = library.folder_of(entry.name);
    std::set<std::string> known;
    for (const auto& [file, expected] : entry.digests) {
      known.insert(file);
      const std::string path = join_path(folder, file);
      if (!env.exists(path)) {
        differences.push_back(concat(path, ": missing; library.json lists it"));
        continue;
      }
      SKEIN_ASSIGN(const std::string digest, digest_of_file(env, path));
      if (digest != expected)
        differences.push_back(concat(path, ": digest ", digest, "; library.json has ", printable(expected),
                                     "; the file was changed or damaged"));
    }
    for (const std::string& file : expert_files(env, folder)) {
      if (!known.contains(file) && env.exists(join_path(folder, file))) {
        differences.push_back(concat(folder, "/", file, ": not in library.json; added behind its back"));
      }
    }
  }
  const Result<std::vector<std::string>> folders = env.list(join_path(library.path, "experts"));
  if (!folders.ok()) return folders.error();
  for (const std::string& name : *folders) {
    if (!listed.contains(name))
      differences.push_back(concat(library.folder_of(printable(name)),
                                   ": not in library.json; left by a killed run, or put there by hand"));
  }
  return differences;
}

}  // namespace skein
