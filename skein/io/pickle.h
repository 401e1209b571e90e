// Python pickles as torch.save writes them, read without Python: a small machine for an allow-list of opcodes, whose
// only callables are torch's tensor builders. Nothing in a pickle can run. Format: pickletools.py of the standard
// library.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "skein/base/result.h"
#include "skein/base/tensor_view.h"

namespace skein {

// What torch._utils._rebuild_tensor_v2 is given: a strided window into a storage of `storage_elements` elements.
// All numbers are the pickle's claims; torch_archive.h checks them and fills in `view`.
struct PickleTensor {
  std::string storage;  // name of the storage in the archive: data/NAME
  DType dtype = DType::kF32;
  std::int64_t storage_elements = 0;
  std::int64_t offset = 0;  // elements
  Shape shape;
  Shape strides;  // elements, as many as shape has
  TensorView view;
};

struct PickleItem;

// A value of Python: None, bool, int, float, str, list or tuple, dict or OrderedDict, tensor.
struct PickleValue {
  using List = std::vector<PickleValue>;
  using Dict = std::vector<PickleItem>;  // in the order of insertion
  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Dict, PickleTensor> value;

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&value);
  }
  template <typename T>
  T* get() {
    return std::get_if<T>(&value);
  }
  // The value at a string key, the last one if it stands twice; null if this is no dict or has no such key.
  const PickleValue* find(std::string_view key) const;
};

struct PickleItem {
  PickleValue key;
  PickleValue value;
};

// Anything outside the allow-list is an error that names it ("posix.system is not allowed"). Bounds: nesting 64 deep,
// 4 million values, shared ones counted wherever they occur. where: for messages.
Result<PickleValue> parse_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace skein
