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

// One thread's room for a block of rows.
struct Workspace {
  std::vector<std::int64_t> begin, end;    // of each expert's segment of pairs (E)
  std::vector<std::int32_t> rows;          // of each pair, within the block; pairs by expert
  std::vector<float> weights;              // of each pair
  std::vector<float> middle;               // (pairs, R rounded up) of T
  std::vector<RankPiece> pieces;           // the same pairs by row
  std::vector<std::int64_t> pieces_begin;  // (rows + 1)
};

struct Block {
  std::int64_t begin = 0, end = 0;
};

// Sorts the block's (row, expert) pairs by expert, rows ascending; leaves out weight 0 and absent experts. A row that
// names an expert twice becomes one pair: its weights are added.
void group_by_expert(const BankSlot& slot, const Mixture& mixture, const Block& block, Workspace& work) {
  const std::int64_t k = mixture.ids.size(1);
  const std::int32_t* ids = mixture.ids.const_data_ptr<std::int32_t>();
  const float* weights = mixture.weights.const_data_ptr<float>();
  const auto counts = [&](std::int64_t i) { return weights[i] != 0 && slot.has(ids[i]); };
  work.end.assign(slot.num_experts(), 0);
  for (std::int64_t i = block.begin * k; i < block.end * k; ++i) {
    if (counts(i)) ++work.end[ids[i]];
  }
  work.begin.resize(slot.num_experts());
  std::int64_t num_pairs = 0;
  for (int e = 0; e < slot.num_experts(); ++e) {
    work.begin[e] = num_pairs;
    num_pairs += std::exchange(work.end[e], num_pairs);
  }
  work.rows.resize(num_pairs);
  work.weights.resize(num_pairs);
  for (std::int64_t row = 0; row < block.end - block.begin; ++row) {
    for (std::int64_t i = (block.begin + row) * k; i < (block.begin + row + 1) * k; ++i) {
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
}

// z of every pair, expert by expert.
template <typename T>
void shrink_block(const LoraKernels<T>& kernels, const BankSlot& slot, const T* x, std::int64_t x_stride,
                  Workspace& work, std::int64_t middle_width) {
  T* const middle = reinterpret_cast<T*>(work.middle.data());
  for (int e = 0; e < slot.num_experts(); ++e) {
    const std::int64_t first = work.begin[e];
    const std::int64_t count = work.end[e] - first;
    if (count == 0) continue;
    kernels.shrink(slot.packed_a<T>(e), slot.d_in(), x, x_stride, work.rows.data() + first, work.weights.data() + first,
                   count, middle + first * middle_width, round_up(slot.rank(e), kRankBlock));
  }
}

// The pairs again, row by row: experts ascending, whatever the row's neighbours.
template <typename T>
void gather_by_row(const BankSlot& slot, std::int64_t num_rows, std::int64_t middle_width, Workspace& work) {
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
    piece.z = middle + work.begin[e] * middle_width;
    piece.b_begin = slot.packed_b<T>(e) - slot.packed_b<T>(0);
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

// Panel by panel: the panels of all experts stay in the first-level cache while the rows pass.
template <typename T>
void expand_block(const LoraKernels<T>& kernels, const BankSlot& slot, std::int64_t num_rows, T* y,
                  std::int64_t y_stride, Workspace& work) {
  for (std::int64_t c = 0; c < slot.d_out(); c += kExpandColumns) {
    kernels.expand(slot.packed_b<T>(0), work.pieces.data(), work.pieces_begin.data(), num_rows, y + c, y_stride,
                   std::min(kExpandColumns, slot.d_out() - c));
    const std::int64_t columns = std::min(kExpandColumns, round_up(slot.d_out(), kColumnBlock) - c);
    for (RankPiece& piece : work.pieces) piece.b_begin += piece.steps * columns * LoraKernels<T>::kPack;
  }
}

template <typename T>
void apply_block(const LoraKernels<T>& kernels, const BankSlot& slot, const Block& block, const at::Tensor& x,
                 const at::Tensor& y, Workspace& work) {
  const std::int64_t middle_width = round_up(slot.max_rank(), kRankBlock);
  work.middle.resize(work.rows.size() * middle_width);  // f32 room: twice what bf16 needs
  const T* const x_rows = static_cast<const T*>(x.const_data_ptr()) + block.begin * x.stride(0);
  T* const y_rows = static_cast<T*>(y.mutable_data_ptr()) + block.begin * y.stride(0);
  shrink_block(kernels, slot, x_rows, x.stride(0), work, middle_width);
  gather_by_row<T>(slot, block.end - block.begin, middle_width, work);
  expand_block(kernels, slot, block.end - block.begin, y_rows, y.stride(0), work);
}

template <typename T>
void apply_packed(const LoraKernels<T>& kernels, const BankSlot& slot, const Mixture& mixture, const at::Tensor& x,
                  const at::Tensor& y) {
  // Long blocks give each expert more rows per reading of its weights; 256 rows keep the middle within the cache.
  const std::int64_t num_rows = x.size(0);
  const std::int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const std::int64_t block_rows = std::clamp<std::int64_t>((num_rows + threads - 1) / threads, 1, 256);
  const std::int64_t num_blocks = (num_rows + block_rows - 1) / block_rows;
  at::parallel_for(0, num_blocks, 1, [&](std::int64_t first, std::int64_t last) {
    static thread_local Workspace work;
    for (std::int64_t i = first; i < last; ++i) {
      const Block block{i * block_rows, std::min(num_rows, (i + 1) * block_rows)};
      group_by_expert(slot, mixture, block, work);
      if (!work.rows.empty()) apply_block(kernels, slot, block, x, y, work);
    }
  });
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

void check_shapes(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  SKEIN_CHECK(x.dim() == 2 && x.size(1) == slot.d_in() && x.stride(1) == 1);
  SKEIN_CHECK(y.dim() == 2 && y.size(1) == slot.d_out() && y.size(0) == x.size(0));
  SKEIN_CHECK(y.stride(1) == 1 && y.scalar_type() == x.scalar_type());
  SKEIN_CHECK(mixture.ids.sizes() == mixture.weights.sizes() && mixture.ids.size(0) == x.size(0));
}

}  // namespace

void apply_mixture(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  check_shapes(slot, mixture, x, y);
  if (slot.empty() || x.size(0) == 0) return;
  if (!slot.on_cpu()) {
    y.copy_(with_mixture_dense(slot, mixture, x, y));
    return;
  }
  const Mixture dense{mixture.ids.contiguous(), mixture.weights.contiguous()};
  if (x.scalar_type() == at::kBFloat16) {
    apply_packed(lora_kernels_bf16(), slot, dense, x, y);
  } else {
    SKEIN_CHECK(x.scalar_type() == at::kFloat);
    apply_packed(lora_kernels_f32(), slot, dense, x, y);
  }
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
