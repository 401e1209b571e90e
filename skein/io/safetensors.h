// safetensors files. Layout and the lies a file can tell: docs/formats/safetensors.md.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/io/checkpoint.h"
#include "skein/io/env.h"

namespace skein {

// Bounds on a header, against files that lie to use up memory.
struct SafetensorsLimits {
  std::uint64_t max_header_bytes = 100'000'000;  // the format's own bound
  std::size_t max_tensors = 1'000'000;
};
SafetensorsLimits adapter_limits();  // for files from strangers: 8 MiB of header, 20 000 tensors

// One file.
Result<std::unique_ptr<Checkpoint>> open_safetensors(Env& env, const std::string& path,
                                                     const SafetensorsLimits& limits = {});
// A folder with model.safetensors, or with model.safetensors.index.json and its shards (every tensor of the index must
// be in the shard named, every shard inside the folder).
Result<std::unique_ptr<Checkpoint>> open_safetensors_folder(Env& env, const std::string& folder);

// What to write: shapes and types first, bytes later, in any chunks but in this order.
struct TensorPlan {
  std::string name;
  DType dtype;
  Shape shape;
};

// The bytes before the tensors' of a file with this plan: length, JSON, padding. The tensors follow in the plan's
// order.
Result<std::string> make_safetensors_header(const std::string& path, const std::vector<TensorPlan>& plan,
                                            const std::map<std::string, std::string>& metadata);

// Writes one file: header at once, then tensor bytes in the order of the plan (sorted by the caller or not).
// Appears under its final name only at finish(): temporary name, sync, rename.
class SafetensorsWriter {
 public:
  static Result<std::unique_ptr<SafetensorsWriter>> create(Env& env, const std::string& path,
                                                           std::vector<TensorPlan> plan,
                                                           const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();                             // without finish(): removes the temporary file
  Status append(std::span<const std::byte> bytes);  // the next bytes of the tensor at hand, then of the following ones
  Status finish();                                  // error if bytes are missing

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// For small files: all tensors at once.
struct NamedTensor {
  std::string name;
  TensorView tensor;
};
Status write_safetensors(Env& env, const std::string& path, const std::vector<NamedTensor>& tensors,
                         const std::map<std::string, std::string>& metadata = {});

}  // namespace skein
