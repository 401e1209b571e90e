#include "skein/io/file_error.h"

#include <cerrno>
#include <system_error>

#include "skein/base/concat.h"

namespace skein {

Error file_error(std::string_view action, std::string_view path, int code) {
  const std::string what = concat("cannot ", action, " ", printable(path, 4096), ": ");
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      return {concat(what, "the disk is full (", std::generic_category().message(code),
                     "); free some space or choose another place")};
    case ENOENT:
      return {concat(what, "no such file or folder")};
    case EISDIR:
      return {concat(what, "it is a folder; a file was expected")};
    case ENOTDIR:
      return {concat(what, "a part of the path is a file; a folder was expected")};
    default:
      return {concat(what, std::generic_category().message(code))};
  }
}

}  // namespace skein
