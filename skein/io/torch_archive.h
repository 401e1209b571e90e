// Files of torch.save (the zip format, since PyTorch 1.6): plain values and tensors, read through an allow-list.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/io/env.h"
#include "skein/io/pickle.h"
#include "skein/io/safetensors.h"

namespace skein {

// All in memory; views live as long as the archive. Thread-safety: const, may be shared.
class TorchArchive {
 public:
  static Result<std::unique_ptr<TorchArchive>> open(Env& env, const std::string& path);

  const std::string& path() const { return path_; }
  // What was saved; each PickleTensor's `view` is contiguous, whatever its strides were.
  const PickleValue& root() const { return root_; }
  // Every tensor that dicts with string keys lead to, keys joined by ".": "state_dict.model.lora_a". Sorted by name.
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

 private:
  friend class TorchArchiveReader;
  TorchArchive() = default;
  std::string path_;
  PickleValue root_;
  std::map<std::string, std::vector<std::byte>> storages_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;  // of tensors that were not contiguous
  std::vector<NamedTensor> tensors_;
};

}  // namespace skein
