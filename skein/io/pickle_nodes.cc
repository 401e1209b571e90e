#include "skein/io/pickle_nodes.h"

#include <array>

#include "skein/base/concat.h"

namespace skein {
namespace pickle {
namespace {

constexpr int kMaxDepth = 64;

constexpr std::array<AllowedGlobal, 14> kAllowed{{
    {"collections.OrderedDict", Callable::kOrderedDict},
    {"torch.Size", Callable::kSize},
    {"torch._utils._rebuild_tensor_v2", Callable::kRebuildTensor},
    {"torch._utils._rebuild_parameter", Callable::kRebuildParameter},
    {"torch.DoubleStorage", Callable::kStorage, DType::kF64},
    {"torch.FloatStorage", Callable::kStorage, DType::kF32},
    {"torch.HalfStorage", Callable::kStorage, DType::kF16},
    {"torch.BFloat16Storage", Callable::kStorage, DType::kBF16},
    {"torch.LongStorage", Callable::kStorage, DType::kI64},
    {"torch.IntStorage", Callable::kStorage, DType::kI32},
    {"torch.ShortStorage", Callable::kStorage, DType::kI16},
    {"torch.CharStorage", Callable::kStorage, DType::kI8},
    {"torch.ByteStorage", Callable::kStorage, DType::kU8},
    {"torch.BoolStorage", Callable::kStorage, DType::kBool},
}};

class Unfolder {
 public:
  explicit Unfolder(const std::string& where) : where_(where) {}

  Result<PickleValue> unfold(const Node& node, int depth) {
    if (depth > kMaxDepth) return fault("its values are nested deeper than ", kMaxDepth, " levels");
    if (++unfolded_ > kMaxNodes) return fault("its values unfold to more than ", kMaxNodes);
    PickleValue result;
    if (const auto* sequence = std::get_if<Sequence>(&node.value)) {
      PickleValue::List list;
      for (const Node* item : sequence->items) {
        SKEIN_ASSIGN(auto value, unfold(*item, depth + 1));
        list.push_back(std::move(value));
      }
      result.value = std::move(list);
    } else if (const auto* mapping = std::get_if<Mapping>(&node.value)) {
      PickleValue::Dict dict;
      for (const auto& [key, item] : mapping->items) {
        SKEIN_ASSIGN(auto name, unfold(*key, depth + 1));
        SKEIN_ASSIGN(auto value, unfold(*item, depth + 1));
        dict.push_back({std::move(name), std::move(value)});
      }
      result.value = std::move(dict);
    } else if (const auto* tensor = std::get_if<PickleTensor>(&node.value)) {
      result.value = *tensor;
    } else if (const auto* text = std::get_if<std::string>(&node.value)) {
      unfolded_ += text->size() / sizeof(PickleValue);  // a long text that is shared counts as what it takes
      result.value = *text;
    } else if (const auto* flag = std::get_if<bool>(&node.value)) {
      result.value = *flag;
    } else if (const auto* integer = std::get_if<std::int64_t>(&node.value)) {
      result.value = *integer;
    } else if (const auto* number = std::get_if<double>(&node.value)) {
      result.value = *number;
    } else if (!std::holds_alternative<std::monostate>(node.value)) {
      return fault("a storage or a function stands where a value was expected");
    }
    return result;
  }

 private:
  template <typename... Parts>
  Error fault(const Parts&... parts) const {
    return {concat(where_, ": pickle: ", parts...)};
  }

  const std::string& where_;
  std::size_t unfolded_ = 0;
};

}  // namespace

const AllowedGlobal* find_allowed(std::string_view name) {
  for (const auto& allowed : kAllowed) {
    if (allowed.name == name) return &allowed;
  }
  return nullptr;
}

Result<PickleValue> unfold(const Node& node, const std::string& where) { return Unfolder(where).unfold(node, 0); }

}  // namespace pickle

const PickleValue* PickleValue::find(std::string_view key) const {
  const auto* dict = get<Dict>();
  if (dict == nullptr) return nullptr;
  for (auto item = dict->rbegin(); item != dict->rend(); ++item) {
    if (const auto* name = item->key.get<std::string>(); name != nullptr && *name == key) return &item->value;
  }
  return nullptr;
}

}  // namespace skein
