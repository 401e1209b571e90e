#include "skein/nn/weight_reader.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/bridge.h"
#include "skein/nn/large_pages.h"

namespace skein {
namespace {

constexpr std::int64_t kAlignment = 32;  // elements: a cache line in bf16

std::int64_t aligned_numel(const Shape& shape) {
  const std::int64_t numel = checked_numel(shape).value();
  return (numel + kAlignment - 1) / kAlignment * kAlignment;
}

// The module that owns a tensor: its name without the last component.
std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

}  // namespace

WeightReader::WeightReader(const BaseModel& base, const ComputeOptions& compute)
    : base_(base),
      compute_(compute),
      slots_(slot_names(base.config)),
      progress_("Reading weights", static_cast<std::int64_t>(tensor_names(base.config).size()), "tensors") {
  std::int64_t total = 0;
  for (TensorName& name : tensor_names(base.config)) {
    if (compute.base_bits == 0 || name.role != TensorRole::kLinear) total += aligned_numel(name.shape);
    names_[name.role].push_back(std::move(name));
  }
  arena_ = compute.device.is_cpu()
               ? empty_on_large_pages(total, compute.dtype)
               : at::empty({total}, at::TensorOptions().dtype(compute.dtype).device(compute.device));
}

at::Tensor WeightReader::allocate(const Shape& shape) {
  const at::Tensor tensor = arena_.narrow(0, used_, checked_numel(shape).value()).view(shape);
  used_ += aligned_numel(shape);  // a group takes no more than its parts were counted for
  return tensor;
}

bool WeightReader::has_next(TensorRole role) const {
  const auto names = names_.find(role);
  if (names == names_.end()) return false;
  const auto taken = taken_.find(role);
  return (taken == taken_.end() ? 0 : taken->second) < names->second.size();
}

const TensorName& WeightReader::take(TensorRole role) {
  SKEIN_CHECK(has_next(role));
  return names_[role][taken_[role]++];
}

void WeightReader::read(const TensorName& name, at::Tensor out) {
  SKEIN_CHECK(out.sizes().vec() == name.shape);
  load_into(*base_.weights, name.name, out);
  progress_.update(++num_read_);
}

at::Tensor WeightReader::next(TensorRole role) {
  const TensorName& name = take(role);
  at::Tensor tensor = allocate(name.shape);
  read(name, tensor);
  tensors_.push_back({name.name, tensor, 0, tensor.size(0)});
  return tensor;
}

void WeightReader::replace_last(const at::Tensor& tensor, double offset) {
  tensors_.back().owner = tensor;
  tensors_.back().offset = offset;
}

LinearGroup WeightReader::next_linears(int count, bool biased) {
  std::vector<TensorName> weights;
  std::vector<std::int64_t> rows;
  std::vector<int> slot_idxs;
  std::int64_t total_rows = 0;
  for (int i = 0; i < count; ++i) {
    slot_idxs.push_back(static_cast<int>(taken_[TensorRole::kLinear]));  // slots are the linears, in the same order
    weights.push_back(take(TensorRole::kLinear));
    rows.push_back(weights.back().shape[0]);
    total_rows += rows.back();
    const SlotName& slot = slots_.at(slot_idxs.back());
    SKEIN_CHECK(slot.module == module_of(weights.back().name));
    SKEIN_CHECK(slot.d_out == rows.back() && slot.d_in == weights.back().shape[1]);
    SKEIN_CHECK(slot.d_in == weights.front().shape[1]);
  }
  const Shape shape{total_rows, weights.front().shape[1]};
  const bool quantises = compute_.base_bits != 0;
  // Read into memory of its own where only its few bits will stay.
  at::Tensor numbers = quantises ? at::empty(shape, compute_.dtype) : allocate(shape);
  LinearGroup group = group_of(std::move(numbers), biased ? allocate({total_rows}) : at::Tensor(), rows, slot_idxs);
  std::int64_t row = 0;
  for (int i = 0; i < count; row += rows[i++]) {
    read(weights[i], group.parts[i].weight);
    if (!quantises) tensors_.push_back({weights[i].name, group.weight, row, rows[i]});
    if (!biased) continue;
    const TensorName& bias = take(TensorRole::kBias);
    SKEIN_CHECK(module_of(bias.name) == module_of(weights[i].name));
    read(bias, group.parts[i].bias);
    tensors_.push_back({bias.name, group.bias, row, rows[i]});
  }
  if (quantises) quantise(group, compute_.base_bits);
  return group;
}

void WeightReader::finish() {
  for (const auto& [role, names] : names_) SKEIN_CHECK(taken_[role] == names.size());
  progress_.finish();
}

}  // namespace skein
