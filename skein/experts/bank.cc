#include "skein/experts/bank.h"

#include <cmath>
#include <span>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/experts/lora_kernels.h"
#include "skein/nn/bridge.h"
#include "skein/spec/mixture_folder.h"  // scales_input

namespace skein {
namespace {

void store(float value, float* to) { *to = value; }
void store(float value, std::uint16_t* to) { *to = f32_to_bf16(value); }

float scaled(const LoraTensors& module, std::int64_t i) { return static_cast<float>(module.scale) * module.b[i]; }

bool all_finite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

// The least size that holds `bytes` and is an odd number of KiB: a panel of every expert then falls into other sets of
// the first-level cache than its neighbours'.
std::int64_t spread_size(std::int64_t bytes) { return round_up(bytes + 1024, 2048) - 1024; }

// [0, n) as packed, its T elements seen as what the tensor holds.
template <typename T>
at::Tensor zeros_of(std::int64_t size) {
  return at::zeros({size}, at::TensorOptions().dtype(sizeof(T) == 2 ? at::kBFloat16 : at::kFloat));
}

// Every expert starts a cache line.
template <typename T>
std::int64_t padded_a_size(std::int64_t rank, std::int64_t d_in) {
  return round_up(packed_a_size(rank, d_in, LoraKernels<T>::kPack), 32);
}

// Into room that holds zeros.
template <typename T>
void pack_module(const LoraTensors& module, std::int64_t d_in, std::int64_t d_out, T* a, T* b) {
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  for (std::int64_t r = 0; r < module.rank; ++r) {
    for (std::int64_t d = 0; d < d_in; ++d) store(module.a[r * d_in + d], a + packed_a_index(r, d, d_in, kPack));
    for (std::int64_t c = 0; c < d_out; ++c) {
      store(scaled(module, c * module.rank + r),
            b + packed_panels_index(r, c, module.rank, d_out, kPack, kExpandColumns));
    }
  }
}

// Elements that someone else owns, as a flat tensor.
at::Tensor seen_as_tensor(const void* elements, std::int64_t size, c10::ScalarType dtype) {
  return at::from_blob(const_cast<void*>(elements), {size}, at::TensorOptions().dtype(dtype));
}

}  // namespace

BankSlot::BankSlot(const std::vector<const LoraTensors*>& modules, std::int64_t d_in, std::int64_t d_out,
                   const ComputeOptions& compute)
    : d_in_(d_in), d_out_(d_out), on_cpu_(compute.device.is_cpu()), row_begin_(1, 0), dtype_(compute.dtype) {
  for (const LoraTensors* module : modules) count(module);
  if (!on_cpu_) {
    stack(modules, compute);
  } else if (compute.dtype == at::kBFloat16) {
    pack<std::uint16_t>(modules);
  } else {
    SKEIN_CHECK(compute.dtype == at::kFloat);
    pack<float>(modules);
  }
}

BankSlot::BankSlot(std::int64_t d_in, std::int64_t d_out, const ComputeOptions& compute,
                   std::shared_ptr<ExpertPages> pages)
    : d_in_(d_in), d_out_(d_out), row_begin_(1, 0), dtype_(compute.dtype), pages_(std::move(pages)) {
  SKEIN_CHECK(compute.device.is_cpu());
}

void BankSlot::count(const LoraTensors* module) {
  const std::int64_t rank = module ? module->rank : 0;
  row_begin_.push_back(row_begin_.back() + rank);
  max_rank_ = std::max(max_rank_, rank);
  if (module) finite_ = finite_ && all_finite(module->a) && all_finite(module->b);
}

void BankSlot::add(const LoraTensors* module) {
  count(module);
  if (module == nullptr) {
    pieces_.push_back(-1);
    a_begin_.push_back(0);
    b_begin_.push_back(0);
  } else if (dtype_ == at::kBFloat16) {
    pack_into_pages<std::uint16_t>(*module);
  } else {
    pack_into_pages<float>(*module);
  }
}

void BankSlot::locate() {
  const auto size = static_cast<std::int64_t>(dtype_ == at::kBFloat16 ? 2 : 4);
  a_base_ = b_base_ = pages_->begin();
  for (int e = 0; e < num_experts(); ++e) {
    if (pieces_[e] < 0) continue;
    const std::int64_t begin = (pages_->piece(pieces_[e]) - pages_->begin()) / size;
    a_begin_[e] += begin;
    b_begin_[e] += begin;
  }
}

template <typename T>
void BankSlot::pack_into_pages(const LoraTensors& module) {
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  const std::int64_t a_size = padded_a_size<T>(module.rank, d_in_);
  std::vector<T> packed(static_cast<std::size_t>(a_size + packed_panels_size(module.rank, d_out_, kPack)));
  pack_module(module, d_in_, d_out_, packed.data(), packed.data() + a_size);
  pieces_.push_back(pages_->append(std::as_bytes(std::span<const T>(packed))));
  a_begin_.push_back(0);
  b_begin_.push_back(a_size);
}

template <typename T>
void BankSlot::pack(const std::vector<const LoraTensors*>& modules) {
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  std::int64_t a_size = 0;
  std::int64_t b_size = 0;
  for (int e = 0; e < num_experts(); ++e) {
    a_begin_.push_back(a_size);
    b_begin_.push_back(b_size);
    a_size += padded_a_size<T>(rank(e), d_in_);
    b_size += spread_size(packed_panels_size(rank(e), d_out_, kPack) * sizeof(T)) / sizeof(T);
  }
  a_ = zeros_of<T>(a_size);
  b_ = zeros_of<T>(b_size);
  a_base_ = a_.const_data_ptr();
  b_base_ = b_.const_data_ptr();
  T* const a = static_cast<T*>(a_.mutable_data_ptr());
  T* const b = static_cast<T*>(b_.mutable_data_ptr());
  for (int e = 0; e < num_experts(); ++e) {
    if (modules[e] != nullptr) pack_module(*modules[e], d_in_, d_out_, a + a_begin_[e], b + b_begin_[e]);
  }
}

void BankSlot::stack(const std::vector<const LoraTensors*>& modules, const ComputeOptions& compute) {
  const at::Tensor a = at::empty({row_begin_.back(), d_in_}, at::kFloat);
  const at::Tensor b = at::empty({row_begin_.back(), d_out_}, at::kFloat);
  const at::Tensor owner = at::empty({row_begin_.back()}, at::kLong);
  for (int e = 0; e < num_experts(); ++e) {
    for (std::int64_t r = 0; r < rank(e); ++r) {
      const std::int64_t row = row_begin_[e] + r;
      std::copy_n(modules[e]->a.data() + r * d_in_, d_in_, a.mutable_data_ptr<float>() + row * d_in_);
      for (std::int64_t c = 0; c < d_out_; ++c) {
        b.mutable_data_ptr<float>()[row * d_out_ + c] = scaled(*modules[e], c * rank(e) + r);
      }
      owner.mutable_data_ptr<std::int64_t>()[row] = e;
    }
  }
  a_ = a.to(compute.device, compute.dtype);
  b_ = b.to(compute.device, compute.dtype);
  owner_ = owner.to(compute.device);
}

at::Tensor BankSlot::expert_a(int e) const {
  if (!on_cpu_) return a_.slice(0, row_begin_[e], row_begin_[e + 1]);
  if (!has(e)) return at::empty({0, d_in_}, at::TensorOptions().dtype(dtype_));
  use(e);
  const std::int64_t pack = dtype_ == at::kBFloat16 ? 2 : 1;
  const std::int64_t blocks = round_up(rank(e), kRankBlock) / kRankBlock;
  const std::int64_t pairs = round_up(d_in_, pack) / pack;
  const at::Tensor packed =
      seen_as_tensor(pack == 2 ? static_cast<const void*>(packed_a<std::uint16_t>(e)) : packed_a<float>(e),
                     packed_a_size(rank(e), d_in_, pack), dtype_);
  return packed.view({blocks, pairs, kRankBlock, pack})
      .permute({0, 2, 1, 3})  // (blocks, 16, pairs, pack)
      .reshape({blocks * kRankBlock, pairs * pack})
      .narrow(0, 0, rank(e))
      .narrow(1, 0, d_in_)
      .contiguous();  // (R, D_in)
}

at::Tensor BankSlot::expert_b(int e) const {
  if (!on_cpu_) return b_.slice(0, row_begin_[e], row_begin_[e + 1]).t();
  if (!has(e)) return at::empty({d_out_, 0}, at::TensorOptions().dtype(dtype_));
  use(e);
  const std::int64_t pack = dtype_ == at::kBFloat16 ? 2 : 1;
  const at::Tensor packed =
      seen_as_tensor(pack == 2 ? static_cast<const void*>(packed_b<std::uint16_t>(e)) : packed_b<float>(e),
                     packed_panels_size(rank(e), d_out_, pack), dtype_);
  const std::int64_t steps = round_up(rank(e), pack) / pack;
  std::vector<at::Tensor> panels;
  for (std::int64_t c = 0; c < d_out_; c += kExpandColumns) {
    const std::int64_t columns = std::min(kExpandColumns, round_up(d_out_, kColumnBlock) - c);
    panels.push_back(packed.narrow(0, c * steps * pack, steps * columns * pack)
                         .view({steps, columns, pack})
                         .permute({1, 0, 2})  // (columns, steps, pack)
                         .reshape({columns, steps * pack}));
  }
  return at::cat(panels).narrow(0, 0, d_out_).narrow(1, 0, rank(e)).contiguous();  // (D_out, R)
}

BankSlot::Stacked BankSlot::stacked() const {
  if (!on_cpu_) return {a_, b_, owner_};
  std::vector<at::Tensor> a, b, owner;
  for (int e = 0; e < num_experts(); ++e) {
    a.push_back(expert_a(e));
    b.push_back(expert_b(e).t());
    owner.push_back(at::full({rank(e)}, e, at::kLong));
  }
  return {at::cat(a), at::cat(b), at::cat(owner)};
}

void BankSlot::set_vectors(const std::vector<const Ia3Tensors*>& vectors, const ComputeOptions& compute) {
  has_vector_.assign(vectors.size(), false);
  for (std::size_t e = 0; e < vectors.size(); ++e) {
    if (vectors[e] == nullptr) continue;
    const auto width = static_cast<std::int64_t>(vectors[e]->scaling.size());
    if (!shifts_.defined()) {
      scales_input_ = vectors[e]->scales_input;
      shifts_ = at::zeros({static_cast<std::int64_t>(vectors.size()), width}, at::kFloat);
    }
    SKEIN_CHECK(scales_input_ == vectors[e]->scales_input && width == (scales_input_ ? d_in_ : d_out_));
    has_vector_[e] = true;
    shifts_[static_cast<std::int64_t>(e)].copy_(tensor_of(vectors[e]->scaling, {width}) - 1);
  }
  if (shifts_.defined()) shifts_ = shifts_.to(compute.device);
}

ExpertBank::ExpertBank(const std::vector<LoraAdapter>& adapters, std::vector<std::string> names,
                       const std::vector<SlotName>& slots, const ComputeOptions& compute)
    : names_(std::move(names)), slot_names_(slots), compute_(compute) {
  SKEIN_CHECK(adapters.size() == names_.size());
  std::vector<std::vector<const LoraTensors*>> modules(slots.size(),
                                                       std::vector<const LoraTensors*>(adapters.size(), nullptr));
  for (std::size_t e = 0; e < adapters.size(); ++e) {
    check(adapters[e], names_[e]);
    for (const LoraTensors& module : adapters[e].modules) modules[module.slot_idx][e] = &module;
  }
  slots_.reserve(slots.size());
  for (std::size_t s = 0; s < slots.size(); ++s)
    slots_.emplace_back(modules[s], slots[s].d_in, slots[s].d_out, compute);
  add_vectors(adapters);
}

ExpertBank::ExpertBank(std::vector<std::string> names, const std::vector<SlotName>& slots,
                       const ComputeOptions& compute, const std::function<LoraAdapter(int)>& read, std::uint64_t memory)
    : names_(std::move(names)), slot_names_(slots), compute_(compute), pages_(std::make_shared<ExpertPages>(memory)) {
  for (const SlotName& slot : slots) slots_.emplace_back(slot.d_in, slot.d_out, compute, pages_);
  std::vector<LoraAdapter> vectors_alone;
  for (int e = 0; e < num_experts(); ++e) {
    LoraAdapter adapter = read(e);
    check(adapter, names_[e]);
    std::vector<const LoraTensors*> modules(slots.size(), nullptr);
    for (const LoraTensors& module : adapter.modules) modules[module.slot_idx] = &module;
    for (std::size_t s = 0; s < slots.size(); ++s) slots_[s].add(modules[s]);
    adapter.modules.clear();
    vectors_alone.push_back(std::move(adapter));
  }
  pages_->map();
  for (BankSlot& slot : slots_) slot.locate();
  add_vectors(vectors_alone);
}

void ExpertBank::check(const LoraAdapter& adapter, const std::string& name) {
  for (const LoraTensors& module : adapter.modules) {
    SKEIN_CHECK(module.slot_idx >= 0 && module.slot_idx < static_cast<int>(slot_names_.size()));
    const SlotName& slot = slot_names_[module.slot_idx];
    const auto a_size = static_cast<std::int64_t>(module.a.size());
    const auto b_size = static_cast<std::int64_t>(module.b.size());
    if (module.rank <= 0 || a_size != module.rank * slot.d_in || b_size != slot.d_out * module.rank) {
      throw Failure(Error{concat("expert ", name, ", module ", slot.module, ": A has ", a_size, " numbers and B ",
                                 b_size, ", but rank ", module.rank, " on a linear of ", slot.d_in, " to ", slot.d_out,
                                 " needs ", module.rank * slot.d_in, " and ", slot.d_out * module.rank,
                                 "; was it trained on another base?")});
    }
    num_parameters_ += a_size + b_size;
  }
}

void ExpertBank::add_vectors(const std::vector<LoraAdapter>& adapters) {
  std::vector<std::vector<const Ia3Tensors*>> vectors(slots_.size(),
                                                      std::vector<const Ia3Tensors*>(adapters.size(), nullptr));
  for (std::size_t e = 0; e < adapters.size(); ++e) {
    for (const Ia3Tensors& vector : adapters[e].vectors) {
      const SlotName& slot = slot_names_[vector.slot_idx];
      if (vector.scales_input != scales_input(slot)) {
        throw Failure(
            Error{concat("expert ", names_[e], ", module ", slot.module, ": its vector scales the ",
                         vector.scales_input ? "input" : "output",
                         "; in a pool vectors scale the input of the feed-forward's last linear and the output "
                         "of the others, as PEFT's defaults do")});
      }
      vectors[vector.slot_idx][e] = &vector;
      num_parameters_ += static_cast<std::int64_t>(vector.scaling.size());
    }
  }
  for (std::size_t s = 0; s < slots_.size(); ++s) slots_[s].set_vectors(vectors[s], compute_);
}

}  // namespace skein
