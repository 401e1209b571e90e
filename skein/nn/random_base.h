// Test support: small bases of every family with random weights, held in memory.
#pragma once

#include <map>
#include <string>

#include "skein/spec/base_model.h"

namespace skein {

// Sizes that divide badly (no multiple of a vector's lanes), so that kernels meet their remainders.
BackboneConfig tiny_config(Family family);
// Every tensor of the config, normal with a spread that keeps activations near 1. Same seed, same weights.
BaseModel random_base(const BackboneConfig& config, std::uint64_t seed = 1);

}  // namespace skein
