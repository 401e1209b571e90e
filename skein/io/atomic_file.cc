#include "skein/io/atomic_file.h"

namespace skein {

Result<std::unique_ptr<AtomicFile>> AtomicFile::create(Env& env, const std::string& path) {
  remove_leftovers(env, path);
  std::unique_ptr<AtomicFile> atomic(new AtomicFile(env, path));
  SKEIN_ASSIGN(atomic->file_, env.create(atomic->temporary_.path()));
  return atomic;
}

AtomicFile::~AtomicFile() {
  if (committed_ || file_ == nullptr) return;
  file_.reset();
  (void)env_.remove_file(temporary_.path());
}

Status AtomicFile::commit() {
  SKEIN_TRY(file_->sync());
  SKEIN_TRY(file_->close());
  SKEIN_TRY(env_.rename(temporary_.path(), path_));
  committed_ = true;
  return env_.sync_folder(parent_folder(path_));
}

}  // namespace skein
