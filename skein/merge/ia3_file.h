// The vectors of a PEFT (IA)3 adapter.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/base/shape.h"
#include "skein/io/env.h"
#include "skein/spec/lora_config.h"

namespace skein::merge {

struct Ia3Vector {
  Shape shape;  // (D_out, 1): the module's output is scaled; (1, D_in): its input
  std::vector<float> values;
  bool scales_input() const { return shape[0] == 1; }
};

struct Ia3File {
  std::string folder;
  AdapterConfig config;
  std::map<std::string, Ia3Vector> modules;
};

// Finite values only; anything but base_model.model.<module>.ia3_l is an error.
Result<Ia3File> read_ia3_file(Env& env, const std::string& folder);

// The kind that adapter_config.json names; what Skein has not is refused by name.
Result<AdapterKind> adapter_kind_of(Env& env, const std::string& folder);

}  // namespace skein::merge
