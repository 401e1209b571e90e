// A folder that appears complete or not at all: written under a temporary name beside its place, synced, renamed.
#pragma once

#include <memory>
#include <string>

#include "skein/io/env.h"

namespace skein {

class OutputFolder {
 public:
  // Refuses an existing target unless overwrite (the old folder is then replaced at commit, and is kept until then).
  // Leftovers of an earlier, killed run for the same target are removed.
  static Result<std::unique_ptr<OutputFolder>> begin(Env& env, const std::string& target, bool overwrite);
  ~OutputFolder();  // without commit: removes what was written

  const std::string& path() const { return path_; }  // write files here
  Status commit();                                   // syncs, renames to the target

 private:
  OutputFolder(Env& env, std::string target, std::string path) : env_(env), target_(std::move(target)), path_(std::move(path)) {}
  Env& env_;
  std::string target_;
  std::string path_;
  bool committed_ = false;
};

}  // namespace skein
