// What the pickle machine works on, before it is a PickleValue: values that may be shared and may still grow.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "skein/io/pickle.h"

namespace skein::pickle {

constexpr std::size_t kMaxNodes = 4'000'000;

enum class Callable { kOrderedDict, kSize, kRebuildTensor, kRebuildParameter, kStorage };

struct AllowedGlobal {
  std::string_view name;
  Callable callable;
  DType dtype = DType::kF32;  // of a storage
};

// The row of the allow-list for "module.name"; null if it is not on it.
const AllowedGlobal* find_allowed(std::string_view name);

struct Node;
struct Sequence {
  std::vector<Node*> items;
  bool is_tuple = false;
};
struct Mapping {
  std::vector<std::pair<Node*, Node*>> items;
  bool is_ordered = false;  // an OrderedDict, which may carry attributes
};
struct Storage {
  std::string name;
  DType dtype;
  std::int64_t elements;
};

struct Node {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Sequence, Mapping, PickleTensor, Storage,
               const AllowedGlobal*>
      value;
};

// The value as a tree. Sharing is unfolded under the bounds, so that a cycle ends at the depth and a bomb at the count.
// where: for messages.
Result<PickleValue> unfold(const Node& node, const std::string& where);

}  // namespace skein::pickle
