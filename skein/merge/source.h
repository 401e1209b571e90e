// One model named by a recipe, opened: where it lies, its config, its tensors.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/io/prefetch_room.h"
#include "skein/merge/model_ref.h"
#include "skein/merge/tensor_reader.h"

namespace skein::merge {

// A file that the output depends on. The plan records these; a run refuses to go on when they changed.
struct InputFile {
  std::string path;
  FileFacts facts;
  std::string header_digest;  // of a safetensors header (the first bytes of other files); 32 hex digits
};

class Source {
 public:
  virtual ~Source() = default;
  ModelRef ref;
  std::string folder;                  // of the model (the .gguf file for a GGUF)
  std::string adapter_folder;          // empty: no adapter
  Json config;                         // config.json, {} if there is none
  std::vector<InputFile> files;        // of weights, sorted by path
  std::shared_ptr<PrefetchRoom> room;  // what the files are wrapped with; null: not

  // Sorted by name, an adapter's effect included.
  virtual const std::vector<std::string>& names() const = 0;
  // Null if absent. Lives as long as the source.
  virtual std::shared_ptr<const TensorReader> find(const std::string& name) const = 0;
};

// Opens a model folder: safetensors with or without an index. beside: the recipe's folder. The adapter of `ref` is the
// caller's to fold in (see with_adapter in adapter_source.h). room: for files of real_env(); may be null.
Result<std::unique_ptr<Source>> open_source(Env& env, const ModelRef& ref, const std::string& beside,
                                            std::shared_ptr<PrefetchRoom> room = nullptr);

// What check_unchanged will compare. file: open at `path`.
Result<InputFile> describe_input_file(Env& env, const std::string& path, const ReadableFile& file);
// The files again, as they are now: an error naming the first that is not as it was.
Status check_unchanged(Env& env, const std::vector<InputFile>& files);

}  // namespace skein::merge
