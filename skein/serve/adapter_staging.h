// Adapter files that a request names, copied to a folder of the server's own before anything reads them.
#pragma once

#include <cstdint>
#include <string>

#include "skein/base/result.h"

namespace skein {

struct StagingLimits {
  std::uint64_t max_bytes = 1ULL << 30;  // of all files together
  std::size_t max_gates = 32;            // files of gates
};

// Copies the adapter `asked` (relative to `allowed`, or absolute and inside it) to the new folder `staging`: its
// adapter_config.json, adapter_model.safetensors, card.json, texts.safetensors and gates/*.safetensors; all else,
// pickles among it, is left where it is. Nothing is followed out of `allowed`: every step of the path and every file is
// opened below the one before, and a symbolic link, a device or a name like ".." is an error. The files can change
// afterwards without effect.
Status stage_adapter(const std::string& allowed, const std::string& asked, const std::string& staging,
                     const StagingLimits& limits = {});

}  // namespace skein
