// Checkpoints of the research code bases, read as experts: r-three/phatgoose (its three stages) and microsoft/mttl.
// Key layouts and their meaning: docs/formats/foreign-checkpoints.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/torch_archive.h"
#include "skein/spec/expert_folder.h"

namespace skein {

struct ForeignExpert {
  std::string name;
  LoraAdapter adapter;
  std::optional<GateFile> gate;  // kind "phatgoose"
};

struct ForeignOptions {
  // Expert names in the file's order: phatgoose's files number their experts and name none. Empty: "expert_0", ...; a
  // file with one expert takes names[0] or "expert".
  std::vector<std::string> names;
  // Neither code base stores its scale. phatgoose: 1 (the scale is 1/R); mttl: 16 by default.
  std::optional<double> alpha;
};

// Recognises the layout by its keys. Every tensor must belong to a linear of the base and have its shape; copies of
// embeddings are skipped; anything else is an error that names it.
Result<std::vector<ForeignExpert>> experts_of_archive(const TorchArchive& archive, const std::vector<SlotName>& slots,
                                                      const ForeignOptions& options);

}  // namespace skein
