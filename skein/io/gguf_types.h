// Numbers of ggml's element types, as they stand in a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "skein/io/gguf.h"

namespace skein {

// Nothing for a type that Skein does not read.
std::optional<GgmlType> ggml_type_from_number(std::uint32_t number);
// Its name even then, for errors; "unknown" if ggml has no such number.
std::string_view ggml_name_of_number(std::uint32_t number);

}  // namespace skein
