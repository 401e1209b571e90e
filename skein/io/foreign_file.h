// Names what a file is that is not what was asked for: the commonest mix-ups, told by their first bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace skein {

// "it is a zip archive as torch.save writes (pickled); ..." with the way out; empty if the bytes say nothing.
std::string foreign_file_hint(std::span<const std::byte> bytes);

}  // namespace skein
