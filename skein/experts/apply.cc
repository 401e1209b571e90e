#include "skein/experts/apply.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "skein/base/check.h"
#include "skein/base/result.h"
#include "skein/experts/lora_kernels.h"

namespace skein {
namespace {

constexpr std::int64_t kCacheLine = 64;

// One part's room.
struct PartWork {
  std::vector<std::int64_t> begin, end;    // of each expert's segment of pairs (E)
  std::vector<std::int32_t> rows;          // of each pair; pairs by expert
  std::vector<float> weights;              // of each pair
  std::vector<float> middle;               // (pairs, R rounded up) of T
  std::vector<RankPiece> pieces;           // the same pairs by row
  std::vector<std::int64_t> pieces_begin;  // (rows + 1)
  std::int64_t middle_width = 0;
};

// Sorts the (row, expert) pairs by expert, rows ascending; leaves out weight 0 and absent experts. A row that
// names an expert twice becomes one pair: its weights are added.
void group_by_expert(const BankSlot& slot, const Mixture& mixture, PartWork& work) {
  const std::int64_t num_rows = mixture.ids.size(0), k = mixture.ids.size(1);
  const std::int32_t* ids = mixture.ids.const_data_ptr<std::int32_t>();
  const float* weights = mixture.weights.const_data_ptr<float>();
  const auto counts = [&](std::int64_t i) { return weights[i] != 0 && slot.has(ids[i]); };
  work.end.assign(slot.num_experts(), 0);
  for (std::int64_t i = 0; i < num_rows * k; ++i) {
    if (counts(i)) ++work.end[ids[i]];
  }
  work.begin.resize(slot.num_experts());
  std::int64_t num_pairs = 0;
  for (int e = 0; e < slot.num_experts(); ++e) {
    work.begin[e] = num_pairs;
    if (work.end[e] > 0) slot.use(e);
    num_pairs += std::exchange(work.end[e], num_pairs);
  }
  work.rows.resize(num_pairs);
  work.weights.resize(num_pairs);
  for (std::int64_t row = 0; row < num_rows; ++row) {
    for (std::int64_t i = row * k; i < (row + 1) * k; ++i) {
      if (!counts(i)) continue;
      std::int64_t& end = work.end[ids[i]];
      if (end > work.begin[ids[i]] && work.rows[end - 1] == row) {
        work.weights[end - 1] += weights[i];
        continue;
      }
      work.rows[end] = static_cast<std::int32_t>(row);
      work.weights[end++] = weights[i];
    }
  }
  work.middle_width = round_up(slot.max_rank(), kRankBlock);
  work.middle.resize(work.rows.size() * work.middle_width);  // f32 room: twice what bf16 needs
}

// The pairs again, row by row: experts ascending, whatever the row's neighbours.
template <typename T>
void gather_by_row(const BankSlot& slot, std::int64_t num_rows, PartWork& work) {
  constexpr std::int64_t kPack = LoraKernels<T>::kPack;
  work.pieces_begin.assign(num_rows + 2, 0);
  for (int e = 0; e < slot.num_experts(); ++e) {
    for (std::int64_t i = work.begin[e]; i < work.end[e]; ++i) ++work.pieces_begin[work.rows[i] + 2];
  }
  for (std::int64_t n = 0; n < num_rows; ++n) work.pieces_begin[n + 2] += work.pieces_begin[n + 1];
  work.pieces.resize(work.rows.size());
  const T* const middle = reinterpret_cast<const T*>(work.middle.data());
  for (int e = 0; e < slot.num_experts(); ++e) {
    const std::int64_t count = work.end[e] - work.begin[e];
    if (count == 0) continue;
    RankPiece piece;
    piece.z = middle + work.begin[e] * work.middle_width;
    piece.b_begin = slot.packed_b<T>(e) - slot.packed_b_base<T>();
    piece.steps = round_up(slot.rank(e), kPack) / kPack;
    const std::int64_t panel_bytes = piece.steps * kPack * kExpandColumns * static_cast<std::int64_t>(sizeof(T));
    piece.ahead_size = round_up((panel_bytes + count - 1) / count, kCacheLine);
    for (std::int64_t i = 0; i < count; ++i) {
      if (piece.ahead_begin >= panel_bytes) piece.ahead_size = 0;
      work.pieces[work.pieces_begin[work.rows[work.begin[e] + i] + 1]++] = piece;
      piece.ahead_begin += piece.ahead_size;
      piece.z = static_cast<const T*>(piece.z) + round_up(slot.rank(e), kRankBlock);
    }
  }
}

// z of the pairs [first, last) of a part, expert by expert.
template <typename T>
void shrink_pairs(const LoraKernels<T>& kernels, const BankSlot& slot, const T* x, std::int64_t x_stride,
                  std::int64_t first, std::int64_t last, PartWork& work) {
  T* const middle = reinterpret_cast<T*>(work.middle.data());
  for (int e = 0; e < slot.num_experts(); ++e) {
    const std::int64_t begin = std::max(first, work.begin[e]), end = std::min(last, work.end[e]);
    if (begin >= end) continue;
    const std::int64_t z_width = round_up(slot.rank(e), kRankBlock);
    T* const z = middle + work.begin[e] * work.middle_width + (begin - work.begin[e]) * z_width;
    kernels.shrink(slot.packed_a<T>(e), slot.d_in(), x, x_stride, work.rows.data() + begin, work.weights.data() + begin,
                   end - begin, z, z_width);
  }
}

std::int64_t num_panels(const BankSlot& slot) { return (slot.d_out() + kExpandColumns - 1) / kExpandColumns; }

// Panels [first, last) of a part's outputs: the panel of all experts stays in the first-level cache while the rows
// pass.
template <typename T>
void expand_panels(const LoraKernels<T>& kernels, const BankSlot& slot, std::int64_t num_rows, T* y,
                   std::int64_t y_stride, std::int64_t first, std::int64_t last, const PartWork& work) {
  static thread_local std::vector<RankPiece> pieces;
  pieces = work.pieces;
  for (RankPiece& piece : pieces) piece.b_begin += piece.steps * first * kExpandColumns * LoraKernels<T>::kPack;
  for (std::int64_t c = first * kExpandColumns; c < std::min(last * kExpandColumns, slot.d_out());
       c += kExpandColumns) {
    kernels.expand(slot.packed_b_base<T>(), pieces.data(), work.pieces_begin.data(), num_rows, y + c, y_stride,
                   std::min(kExpandColumns, slot.d_out() - c));
    for (RankPiece& piece : pieces) piece.b_begin += piece.steps * kExpandColumns * LoraKernels<T>::kPack;
  }
}

// Calls visit(part, begin, end) for what [first, last) of all parts' units, one after the other, is of each.
template <class Sizes, class Visit>
void visit_range(std::size_t num_parts, std::int64_t first, std::int64_t last, const Sizes& size_of,
                 const Visit& visit) {
  for (std::size_t i = 0; i < num_parts && last > 0; ++i) {
    const std::int64_t size = size_of(i);
    if (first < size) visit(i, std::max<std::int64_t>(first, 0), std::min(last, size));
    first -= size;
    last -= size;
  }
}

// Of a pass over few rows too the pairs and the panels of B are shared out among the threads, not the rows, so that a
// single token keeps all of them busy and no expert is read twice.
template <typename T>
void shrink_parts(const LoraKernels<T>& kernels, const std::vector<MixedPart>& parts, const at::Tensor& x,
                  std::vector<PartWork>& work) {
  if (work.size() < parts.size()) work.resize(parts.size());
  const T* const x_rows = static_cast<const T*>(x.const_data_ptr());
  const auto pairs_of = [&](std::size_t i) { return static_cast<std::int64_t>(work[i].rows.size()); };
  std::int64_t pairs = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    group_by_expert(*parts[i].slot, parts[i].mixture, work[i]);
    gather_by_row<T>(*parts[i].slot, x.size(0), work[i]);
    pairs += pairs_of(i);
  }
  at::parallel_for(0, pairs, 1, [&](std::int64_t first, std::int64_t last) {
    visit_range(parts.size(), first, last, pairs_of, [&](std::size_t i, std::int64_t begin, std::int64_t end) {
      shrink_pairs(kernels, *parts[i].slot, x_rows, x.stride(0), begin, end, work[i]);
    });
  });
}

template <typename T>
void expand_parts(const LoraKernels<T>& kernels, const std::vector<MixedPart>& parts, const std::vector<at::Tensor>& ys,
                  const std::vector<PartWork>& work) {
  const auto panels_of = [&](std::size_t i) { return work[i].rows.empty() ? 0 : num_panels(*parts[i].slot); };
  std::int64_t panels = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) panels += panels_of(i);
  at::parallel_for(0, panels, 1, [&](std::int64_t first, std::int64_t last) {
    visit_range(parts.size(), first, last, panels_of, [&](std::size_t i, std::int64_t begin, std::int64_t end) {
      expand_panels(kernels, *parts[i].slot, ys[i].size(0), static_cast<T*>(ys[i].mutable_data_ptr()), ys[i].stride(0),
                    begin, end, work[i]);
    });
  });
}

// step(kernels) with the kernels of x's type.
template <class Step>
void with_kernels(c10::ScalarType dtype, const Step& step) {
  if (dtype == at::kBFloat16) {
    step(lora_kernels_bf16());
  } else {
    SKEIN_CHECK(dtype == at::kFloat);
    step(lora_kernels_f32());
  }
}

// Without a middle that could carry 0 * NaN from one expert to another: expert by expert, on the rows that chose it.
at::Tensor with_mixture_by_expert(const BankSlot& slot, const at::Tensor& weights, const at::Tensor& x, at::Tensor y) {
  for (int e = 0; e < slot.num_experts(); ++e) {
    if (!slot.has(e)) continue;
    const at::Tensor rows = at::nonzero(weights.select(1, e)).squeeze(1);
    if (rows.size(0) == 0) continue;
    const at::Tensor w = weights.index({rows, at::full({1}, e, rows.options())}).unsqueeze(1).to(x.scalar_type());
    const at::Tensor middle = at::linear(x.index_select(0, rows), slot.expert_a(e)) * w;
    y = y.index_add(0, rows, at::linear(middle, slot.expert_b(e)));
  }
  return y;
}

void check_inputs(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x) {
  SKEIN_CHECK(x.dim() == 2 && x.size(1) == slot.d_in() && x.stride(1) == 1);
  SKEIN_CHECK(mixture.ids.sizes() == mixture.weights.sizes() && mixture.ids.size(0) == x.size(0));
}

void check_outputs(const BankSlot& slot, const at::Tensor& x, const at::Tensor& y) {
  SKEIN_CHECK(y.dim() == 2 && y.size(1) == slot.d_out() && y.size(0) == x.size(0));
  SKEIN_CHECK(y.stride(1) == 1 && y.scalar_type() == x.scalar_type());
}

void check_shapes(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  check_inputs(slot, mixture, x);
  check_outputs(slot, x, y);
}

}  // namespace

struct MixtureProduct::Room {
  std::vector<MixedPart> parts;
  std::vector<PartWork> work;
  at::Tensor x;
};

MixtureProduct::MixtureProduct() : room_(std::make_unique<Room>()) {}
MixtureProduct::~MixtureProduct() = default;

void MixtureProduct::shrink(std::vector<MixedPart> parts, const at::Tensor& x) {
  SKEIN_CHECK(x.size(0) <= kMaxRows);
  for (MixedPart& part : parts) {
    SKEIN_CHECK(part.slot->on_cpu());
    check_inputs(*part.slot, part.mixture, x);
    part.mixture = {part.mixture.ids.contiguous(), part.mixture.weights.contiguous()};
  }
  room_->parts = std::move(parts);
  room_->x = x;
  with_kernels(x.scalar_type(), [&](const auto& kernels) { shrink_parts(kernels, room_->parts, x, room_->work); });
}

void MixtureProduct::expand(const std::vector<at::Tensor>& ys) {
  SKEIN_CHECK(ys.size() == room_->parts.size());
  const at::Tensor x = std::move(room_->x);
  for (std::size_t i = 0; i < ys.size(); ++i) check_outputs(*room_->parts[i].slot, x, ys[i]);
  with_kernels(x.scalar_type(), [&](const auto& kernels) { expand_parts(kernels, room_->parts, ys, room_->work); });
}

void apply_mixtures(const std::vector<MixedPart>& parts, const at::Tensor& x) {
  std::vector<MixedPart> on_cpu;
  for (const MixedPart& part : parts) {
    if (part.slot->on_cpu()) {
      on_cpu.push_back(part);
    } else {
      part.y.copy_(with_mixture_dense(*part.slot, part.mixture, x, part.y));
    }
  }
  static thread_local MixtureProduct product;
  for (std::int64_t first = 0; first < x.size(0) && !on_cpu.empty(); first += MixtureProduct::kMaxRows) {
    const std::int64_t count = std::min(MixtureProduct::kMaxRows, x.size(0) - first);
    const auto own = [&](const at::Tensor& all) { return count == all.size(0) ? all : all.narrow(0, first, count); };
    std::vector<MixedPart> block;
    std::vector<at::Tensor> ys;
    for (const MixedPart& part : on_cpu) {
      SKEIN_CHECK(part.mixture.ids.size(0) == x.size(0) && part.y.size(0) == x.size(0));
      block.push_back({part.slot, {own(part.mixture.ids), own(part.mixture.weights)}, {}});
      ys.push_back(own(part.y));
    }
    product.shrink(std::move(block), own(x));
    product.expand(ys);
  }
}

void apply_mixture(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  apply_mixtures({{&slot, mixture, y}}, x);
}

at::Tensor with_mixture_dense(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  check_shapes(slot, mixture, x, y);
  if (slot.empty()) return y;
  const at::Tensor weights = at::zeros({x.size(0), slot.num_experts()}, mixture.weights.options())
                                 .scatter_add(1, mixture.ids.to(at::kLong), mixture.weights);  // (N, E)
  if (!slot.finite()) return with_mixture_by_expert(slot, weights, x, y);
  const BankSlot::Stacked stacked = slot.stacked();
  const at::Tensor row_weights = weights.index_select(1, stacked.owner).to(x.scalar_type());  // (N, sum of R)
  return at::addmm(y, at::linear(x, stacked.a) * row_weights, stacked.b);
}

// With M the map from every expert's ranks to ranks of the mixture: z = M^T (w . A x), y + B^T (w . M z).
at::Tensor with_mixed_factors(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  check_shapes(slot, mixture, x, y);
  if (slot.empty()) return y;
  if (!slot.finite()) throw Failure({"an expert holds NaN or infinite values; its factors cannot be mixed"});
  const BankSlot::Stacked stacked = slot.stacked();
  std::vector<std::int64_t> ranks;  // of each stacked row, its place within its expert
  for (int e = 0; e < slot.num_experts(); ++e) {
    for (std::int64_t r = 0; r < slot.rank(e); ++r) ranks.push_back(r);
  }
  const at::Tensor rank = at::tensor(ranks, at::kLong).to(x.device());
  const at::Tensor weights = at::zeros({x.size(0), slot.num_experts()}, mixture.weights.options())
                                 .scatter_add(1, mixture.ids.to(at::kLong), mixture.weights);  // (N, E)
  const at::Tensor row_weights = weights.index_select(1, stacked.owner);                       // (N, sum of R)
  const at::Tensor middle = at::linear(x, stacked.a).to(at::kFloat) * row_weights;
  const at::Tensor mixed = at::zeros({x.size(0), slot.max_rank()}, middle.options()).index_add(1, rank, middle);
  return at::addmm(y, (mixed.index_select(1, rank) * row_weights).to(x.scalar_type()), stacked.b);
}

at::Tensor apply_mixture_reference(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x,
                                   const at::Tensor& y) {
  const at::Tensor x64 = x.to(at::kCPU, at::kDouble);
  at::Tensor y64 = y.to(at::kCPU, at::kDouble).clone();
  const at::Tensor ids = mixture.ids.cpu();
  const at::Tensor weights = mixture.weights.cpu();
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    for (std::int64_t i = 0; i < ids.size(1); ++i) {
      const int e = ids[n][i].item<int>();
      const double w = weights[n][i].item<double>();
      if (w == 0 || !slot.has(e)) continue;
      const at::Tensor middle = slot.expert_a(e).to(at::kCPU, at::kDouble).mv(x64[n]);  // (R)
      y64[n] += w * slot.expert_b(e).to(at::kCPU, at::kDouble).mv(middle);
    }
  }
  return y64;
}

}  // namespace skein
