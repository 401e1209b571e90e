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

// Bits per number that a tensor is kept in; 0: as the compute type. The head and what may be the head decide over every
// token, so they keep 8, as llama.cpp's 4-bit files do.
int kept_bits(TensorRole role, int base_bits) {
  if (role == TensorRole::kEmbedding || role == TensorRole::kHead) return base_bits == 0 ? 0 : 8;
  return role == TensorRole::kLinear ? base_bits : 0;
}

std::int64_t aligned_code_bytes(const Shape& matrix, int bits) {
  constexpr std::int64_t kLine = 64;
  return (QuantisedWeight::bytes_of(matrix[0], matrix[1], bits) + kLine - 1) / kLine * kLine;
}

// What few bits are made of: 16 bits as they are stored, else f32, so that blocks of 8 bits are found again as they
// were.
c10::ScalarType read_as(const Checkpoint& weights, const std::string& name) {
  const TensorInfo* info = weights.find(name);
  if (info != nullptr && info->dtype == DType::kBF16) return c10::ScalarType::BFloat16;
  return c10::ScalarType::Float;
}

// The module that owns a tensor: its name without the last component.
std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

}  // namespace

WeightReader::WeightReader(const BaseModel& base, const ComputeOptions& compute)
    : base_(base),
      compute_(compute),
      slots_(slot_names(base.config)),
      progress_("Reading weights", static_cast<std::int64_t>(tensor_names(base.config).size()), "tensors") {
  std::int64_t total = 0, code_bytes = 0;
  for (TensorName& name : tensor_names(base.config)) {
    if (const int bits = kept_bits(name.role, compute.base_bits); bits != 0) {
      code_bytes += aligned_code_bytes(name.shape, bits);
    } else {
      total += aligned_numel(name.shape);
    }
    names_[name.role].push_back(std::move(name));
  }
  arena_ = compute.device.is_cpu()
               ? empty_on_large_pages(total, compute.dtype)
               : at::empty({total}, at::TensorOptions().dtype(compute.dtype).device(compute.device));
  if (compute.base_bits != 0) {
    SKEIN_CHECK(compute.device.is_cpu());
    code_arena_ = empty_on_large_pages(code_bytes, c10::ScalarType::Byte);
  }
}

QuantisedOptions WeightReader::quantised(const Shape& matrix, int bits) {
  const std::int64_t bytes = QuantisedWeight::bytes_of(matrix[0], matrix[1], bits);
  const at::Tensor memory = code_arena_.narrow(0, used_code_bytes_, bytes);
  used_code_bytes_ += aligned_code_bytes(matrix, bits);
  return {.bits = bits, .eight_bit_inputs = compute_.eight_bit_inputs, .memory = memory};
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

TokenTable WeightReader::next_table(TensorRole role) {
  const int bits = kept_bits(role, compute_.base_bits);
  if (bits == 0) return TokenTable(next(role));
  const TensorName& name = take(role);
  const at::Tensor numbers = at::empty(name.shape, read_as(*base_.weights, name.name));
  read(name, numbers);
  return TokenTable(std::make_shared<const QuantisedWeight>(numbers, quantised(name.shape, bits)), compute_.dtype);
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
  const int bits = kept_bits(TensorRole::kLinear, compute_.base_bits);
  // Read into memory of its own where only its few bits will stay.
  at::Tensor numbers = bits != 0 ? at::empty(shape, read_as(*base_.weights, weights.front().name)) : allocate(shape);
  LinearGroup group = group_of(std::move(numbers), biased ? allocate({total_rows}) : at::Tensor(), rows, slot_idxs);
  std::int64_t row = 0;
  for (int i = 0; i < count; row += rows[i++]) {
    read(weights[i], group.parts[i].weight);
    if (bits == 0) tensors_.push_back({weights[i].name, group.weight, row, rows[i]});
    if (!biased) continue;
    const TensorName& bias = take(TensorRole::kBias);
    SKEIN_CHECK(module_of(bias.name) == module_of(weights[i].name));
    read(bias, group.parts[i].bias);
    tensors_.push_back({bias.name, group.bias, row, rows[i]});
  }
  if (bits != 0) quantise(group, compute_.dtype, quantised(shape, bits));
  return group;
}

void WeightReader::finish() {
  for (const auto& [role, names] : names_) SKEIN_CHECK(taken_[role] == names.size());
  progress_.finish();
}

}  // namespace skein
