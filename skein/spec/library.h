// A pool of experts on disk: library.json and experts/NAME/. Format: docs/formats/library.md.
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/spec/base_model.h"

namespace skein {

struct LibraryEntry {
  std::string name;
  // File names inside experts/NAME (e.g. "adapter_model.safetensors", "gates/phatgoose.safetensors") with their
  // digests.
  std::vector<std::pair<std::string, std::string>> digests;
};

struct Library {
  std::string path;
  int format_version = 1;
  std::string base_fingerprint;
  std::string base_hint;              // the path it was created from, for messages only
  std::vector<LibraryEntry> experts;  // ordered: expert_idx is the place here
  std::string folder_of(const std::string& name) const { return path + "/experts/" + name; }
};

Result<Library> create_library(Env& env, const std::string& path, const BaseModel& base);
Result<Library> open_library(Env& env, const std::string& path);
struct AddOptions {
  std::string name;  // default: the folder's own name
  bool allow_other_base = false;
};
// Copies the folder in. Checks the adapter against the base first, and the base fingerprint of its card if it has one.
Status add_expert(Env& env, Library& library, const BaseModel& base, const std::string& expert_folder,
                  const AddOptions& options);
Status remove_expert(Env& env, Library& library, const std::string& name);
// Takes over the files of an expert as they now are (a gate was added to it) into library.json.
Status record_files(Env& env, Library& library, const std::string& name);
// One sentence per difference between library.json's digests and the files; empty: all agree.
Result<std::vector<std::string>> check_library(Env& env, const Library& library);

}  // namespace skein
