// A folder that appears complete or not at all: written under a temporary name beside its place, synced, renamed.
//
// Over an existing folder the two exchange their names in one step. Where the file system cannot do that, the old
// folder first steps aside to ".NAME.skein-old"; a crash just then leaves it there, and the next begin() puts it back.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "skein/io/env.h"
#include "skein/io/temporary_name.h"

namespace skein {

// Where begin_kept() works: ".NAME.skein-unfinished".
std::string unfinished_path(const std::string& target);

class OutputFolder {
 public:
  // Refuses an existing target unless overwrite (the old folder is then replaced at commit, and is kept until then).
  // Leftovers of an earlier, killed run for the same target are removed.
  static Result<std::unique_ptr<OutputFolder>> begin(Env& env, const std::string& target, bool overwrite);
  // The same for work that can be gone on with: written at unfinished_path(target), found again by the next call with
  // what it holds, and kept without commit.
  static Result<std::unique_ptr<OutputFolder>> begin_kept(Env& env, const std::string& target, bool overwrite);
  ~OutputFolder();  // without commit: removes what was written, unless kept

  const std::string& path() const { return path_; }  // write files here
  Status commit();                                   // syncs, renames to the target

 private:
  OutputFolder(Env& env, const std::string& target, bool overwrite)
      : env_(env), target_(target), overwrite_(overwrite) {}

  Env& env_;
  std::string target_;
  std::optional<TemporaryName> temporary_;  // nothing if kept
  std::string path_;
  bool overwrite_;
  bool finished_ = false;
};

}  // namespace skein
