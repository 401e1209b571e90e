// The header of a safetensors file, checked against the file's size.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/tensor_view.h"
#include "skein/io/safetensors.h"

namespace skein {

struct SafetensorsHeader {
  std::vector<NamedTensor> tensors;                           // sorted by name; views into the file's bytes
  std::vector<std::pair<std::string, std::string>> metadata;  // sorted
};

// file: the whole file; path: for messages.
Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, const std::string& path,
                                            const SafetensorsLimits& limits);

}  // namespace skein
