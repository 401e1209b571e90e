#include "skein/io/output_folder.h"

#include "skein/base/concat.h"

namespace skein {
namespace {

// Everything below `folder` to the disk, whoever wrote it and however.
Status sync_tree(Env& env, const std::string& folder) {
  SKEIN_ASSIGN(const auto names, env.list(folder));
  for (const auto& name : names) {
    const std::string path = join_path(folder, name);
    SKEIN_ASSIGN(const FileFacts facts, env.facts(path));
    if (facts.is_folder) {
      SKEIN_TRY(sync_tree(env, path));
      continue;
    }
    SKEIN_ASSIGN(const auto file, env.open_for_append(path));
    SKEIN_TRY(file->sync());
    SKEIN_TRY(file->close());
  }
  return env.sync_folder(folder);
}

// An old folder that stood aside when a run was killed: back to its place, or away if the new one is there.
Status settle_aside(Env& env, const std::string& target) {
  const std::string aside = aside_path(target);
  if (!env.exists(aside)) return {};
  return env.exists(target) ? env.remove_tree(aside) : env.rename(aside, target);
}

// What must hold before anything is written for `target`.
Status make_ready(Env& env, const std::string& target, bool overwrite) {
  SKEIN_TRY(env.make_folders(parent_folder(target)));
  SKEIN_TRY(settle_aside(env, target));
  if (env.exists(target)) {
    if (!overwrite) return Error{concat(target, " exists already; give another name, or --overwrite to replace it")};
    SKEIN_ASSIGN(const FileFacts facts, env.facts(target));
    if (!facts.is_folder)
      return Error{concat(target, " is a file; a folder is written here, so it cannot be replaced")};
  }
  remove_leftovers(env, target);
  return {};
}

}  // namespace

std::string unfinished_path(const std::string& target) {
  return join_path(parent_folder(target), concat(".", base_name(target), ".skein-unfinished"));
}

Result<std::unique_ptr<OutputFolder>> OutputFolder::begin(Env& env, const std::string& target, bool overwrite) {
  SKEIN_TRY(make_ready(env, target, overwrite));
  std::unique_ptr<OutputFolder> output(new OutputFolder(env, target, overwrite));
  output->temporary_.emplace(target);
  output->path_ = output->temporary_->path();
  SKEIN_TRY(env.make_folders(output->path()));
  return output;
}

Result<std::unique_ptr<OutputFolder>> OutputFolder::begin_kept(Env& env, const std::string& target, bool overwrite) {
  SKEIN_TRY(make_ready(env, target, overwrite));
  std::unique_ptr<OutputFolder> output(new OutputFolder(env, target, overwrite));
  output->path_ = unfinished_path(target);
  SKEIN_TRY(env.make_folders(output->path()));
  return output;
}

OutputFolder::~OutputFolder() {
  if (!finished_ && temporary_) (void)env_.remove_tree(path());
}

Status OutputFolder::commit() {
  SKEIN_TRY(sync_tree(env_, path()));
  if (!env_.exists(target_)) {
    SKEIN_TRY(env_.rename(path(), target_));
    finished_ = true;
    return env_.sync_folder(parent_folder(target_));
  }
  if (!overwrite_) return Error{concat(target_, " has appeared while it was being written; it is left as it is")};

  SKEIN_ASSIGN(const bool exchanged, env_.exchange(path(), target_));
  const std::string old = exchanged ? path() : aside_path(target_);
  if (!exchanged) {
    SKEIN_TRY(env_.rename(target_, old));
    if (auto renamed = env_.rename(path(), target_); !renamed.ok()) {
      (void)env_.rename(old, target_);
      return renamed;
    }
  }
  finished_ = true;
  SKEIN_TRY(env_.sync_folder(parent_folder(target_)));
  return env_.remove_tree(old);  // only now: the new folder's name is on the disk
}

}  // namespace skein
