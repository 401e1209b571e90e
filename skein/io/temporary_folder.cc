#include "skein/io/temporary_folder.h"

#include <stdlib.h>

#include "skein/base/concat.h"
#include "skein/io/env.h"

namespace skein {

std::string temporary_root(const std::string& otherwise) {
  const char* named = std::getenv("TMPDIR");
  return named != nullptr && *named != '\0' ? named : otherwise;
}

TemporaryFolder::TemporaryFolder(const std::string& stem, const std::string& parent)
    : path_(concat(parent, "/", stem, "-XXXXXX")) {
  if (mkdtemp(path_.data()) == nullptr) throw Failure({concat("no temporary folder ", path_, " can be made")});
}

TemporaryFolder::~TemporaryFolder() { static_cast<void>(real_env().remove_tree(path_).ok()); }

}  // namespace skein
