// BASE as the commands take it: a Hugging Face model folder or one .gguf file.
#pragma once

#include <memory>
#include <string>

#include "skein/base/result.h"
#include "skein/io/checkpoint.h"
#include "skein/io/env.h"
#include "skein/spec/backbone_config.h"

namespace skein {

struct BaseModel {
  std::string path;
  BackboneConfig config;
  std::shared_ptr<const Checkpoint> weights;  // Hugging Face names and row order, whatever the file; copies share it
};

// Opens and checks: every tensor of tensor_names(config) is there with its shape (a tied head may be absent; a prefix
// such as "language_model." of multimodal exports is accepted). Extra tensors are ignored.
Result<BaseModel> open_base_model(Env& env, const std::string& path);

// A GGUF file seen as a Checkpoint with Hugging Face names, shapes and row order (used by open_base_model and convert).
Result<std::unique_ptr<Checkpoint>> gguf_as_checkpoint(std::unique_ptr<GgufFile> file, const BackboneConfig& config);

// Digest of names, shapes and values rounded to bf16, so that a GGUF and its conversion agree: 32 hex digits. Reads all
// weights once; cached by path, size, time and inode under $XDG_CACHE_HOME/skein (a cache that cannot be written is no
// error).
Result<std::string> base_fingerprint(Env& env, const BaseModel& base);

}  // namespace skein
