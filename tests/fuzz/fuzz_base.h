// A small base for files that are matched to one.
#pragma once

#include "skein/spec/backbone_config.h"

namespace skein {

inline BackboneConfig fuzz_base() {
  BackboneConfig config;
  config.num_layers = 2;
  config.d_model = 12;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.d_head = 4;
  config.d_ff = 20;
  config.vocabulary_size = 32;
  config.max_positions = 64;
  config.query_scale = 0.5;
  return config;
}

}  // namespace skein
