// What the system said about a file, as one sentence.
#pragma once

#include <string>
#include <string_view>

#include "skein/base/result.h"

namespace skein {

// "cannot open a/b: no such file or folder". action: an infinitive; code: an errno value. A full disk says so.
Error file_error(std::string_view action, std::string_view path, int code);

}  // namespace skein
