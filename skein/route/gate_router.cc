#include "skein/route/gate_router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/experts/lora_kernels.h"
#include "skein/route/choice_kernels.h"

namespace skein {
namespace {

constexpr double kLayerNormEps = 1e-5;
constexpr double kL2Eps = 1e-6;
constexpr std::int64_t kBlockRows = 64;  // their f32 copies and the gates of a slot share the second-level cache

// The normalised gate less its mean, in f64 (methods 5 and 5.3).
std::vector<double> normalised_gate(const std::vector<float>& gate, RouterOptions::GateNorm norm) {
  const auto d = static_cast<double>(gate.size());
  const double mean = std::accumulate(gate.begin(), gate.end(), 0.0) / d;
  double squares = 0;
  double centred_squares = 0;
  for (const double value : gate) {
    squares += value * value;
    centred_squares += (value - mean) * (value - mean);
  }
  double factor = 1;
  if (norm == RouterOptions::GateNorm::kLayerNorm) factor = 1 / std::sqrt(centred_squares / d + kLayerNormEps);
  if (norm == RouterOptions::GateNorm::kL2) factor = 1 / (std::sqrt(squares) + kL2Eps);
  std::vector<double> result;
  for (const double value : gate) result.push_back((value - mean) * factor);
  return result;
}

// The gate of expert e at the slot; a sentence if there is none.
const GateTensors& gate_at(const ExpertBank& bank, const std::vector<GateFile>& gates, int e, int slot_idx) {
  const SlotName& slot = bank.slot_names()[slot_idx];
  for (const GateTensors& module : gates[e].modules) {
    if (module.slot_idx != slot_idx) continue;
    if (module.num_directions != 1 || static_cast<std::int64_t>(module.directions.size()) != slot.d_in) {
      throw Failure({concat("expert ", bank.names()[e], ": its gate of ", slot.module, " has ", module.num_directions,
                            " directions and ", module.directions.size(), " numbers; phatgoose needs 1 of ", slot.d_in),
                     ErrorKind::kUsage});
    }
    return module;
  }
  throw Failure({concat("expert ", bank.names()[e], " has no phatgoose gate for ", slot.module,
                        "; train one (skein train gate), switch the expert off (--without), or route without gates"),
                 ErrorKind::kUsage});
}

struct Rows {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

// Rows [begin, begin + num_rows) of x in f32: x itself, or a copy in the thread's own room.
Rows f32_rows(const at::Tensor& x, std::int64_t begin, std::int64_t num_rows) {
  if (x.scalar_type() == at::kFloat) return {x.const_data_ptr<float>() + begin * x.stride(0), x.stride(0)};
  static thread_local std::vector<float> widened;
  widened.resize(num_rows * x.size(1));
  const auto* from = static_cast<const std::uint16_t*>(x.const_data_ptr()) + begin * x.stride(0);
  for (std::int64_t n = 0; n < num_rows; ++n) {
    choice_kernels().widen_bf16(from + n * x.stride(0), x.size(1), widened.data() + n * x.size(1));
  }
  return {widened.data(), x.size(1)};
}

// scores (num_rows, columns) = x . gates, panel by panel.
template <typename T>
void project_all(const LoraKernels<T>& kernels, const T* gates, const T* x, std::int64_t x_stride, std::int64_t d,
                 std::int64_t num_rows, std::int64_t columns, float* scores) {
  for (std::int64_t c = 0; c < columns; c += kProjectColumns) {
    kernels.project(gates + c * d, d / LoraKernels<T>::kPack, std::min(kProjectColumns, columns - c), x, x_stride,
                    num_rows, scores + c, columns);
  }
}

}  // namespace

GateRouter::GateRouter(const RouterOptions& options, const ExpertBank& bank, const std::vector<GateFile>& gates,
                       const std::vector<bool>& is_allowed, const ComputeOptions& compute, bool by_libtorch)
    : options_(options), num_experts_(bank.num_experts()), means_(Means::kScores) {
  const bool all_even = std::all_of(bank.slot_names().begin(), bank.slot_names().end(),
                                    [](const SlotName& slot) { return slot.d_in % 2 == 0; });
  if (!compute.device.is_cpu() || options.bf16_scores || by_libtorch) {
    means_ = Means::kLibtorch;
  } else if (compute.dtype == at::kBFloat16 && all_even && num_experts_ >= kColumnBlock * 2 &&
             options.top_k * 8 <= num_experts_ && lora_kernels_bf16_avx512() != nullptr) {
    means_ = Means::kCoarseScores;
  }
  std::vector<GateFile> none;
  if (gates.empty()) none.resize(num_experts_);
  const std::vector<GateFile>& all = gates.empty() ? none : gates;
  SKEIN_CHECK(static_cast<std::int64_t>(all.size()) == num_experts_);
  for (int s = 0; s < static_cast<int>(bank.slot_names().size()); ++s) {
    std::vector<const GateTensors*> of_slot(num_experts_, nullptr);
    for (int e = 0; e < num_experts_; ++e) {
      if (is_allowed[e] && bank.slot(s).attaches(e)) of_slot[e] = &gate_at(bank, all, e, s);
    }
    slots_.push_back(make_slot(of_slot, bank.slot_names()[s].d_in, compute));
  }
}

GateRouter::Slot GateRouter::make_slot(const std::vector<const GateTensors*>& gates, std::int64_t d_in,
                                       const ComputeOptions& compute) const {
  const std::int64_t columns = means_ == Means::kLibtorch ? num_experts_ : round_up(num_experts_, kColumnBlock);
  Slot slot;
  slot.d_in = d_in;
  slot.gates = at::zeros({d_in * columns}, at::kFloat);
  slot.bias = at::full({columns}, -std::numeric_limits<float>::infinity(), at::kFloat);
  float* const to = slot.gates.mutable_data_ptr<float>();
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    if (gates[e] == nullptr) continue;
    slot.bias.mutable_data_ptr<float>()[e] = 0;
    const std::vector<double> gate = normalised_gate(gates[e]->directions, options_.gate_norm);
    for (std::int64_t d = 0; d < d_in; ++d) {
      const std::int64_t at =
          means_ == Means::kScores ? packed_panels_index(d, e, d_in, num_experts_, 1, kProjectColumns) : e * d_in + d;
      to[at] = static_cast<float>(gate[d]);
    }
  }
  if (means_ == Means::kCoarseScores) make_coarse(slot);
  if (means_ == Means::kLibtorch) {
    slot.gates = slot.gates.view({num_experts_, d_in}).to(compute.device);
    slot.bias = slot.bias.to(compute.device);
  }
  return slot;
}

// With G = H + R, H rounded to bf16: |u . G - u . H| <= |u| |R|, and summing D products in f32 adds at most D 2^-23 |u|
// |H|.
void GateRouter::make_coarse(Slot& slot) const {
  const std::int64_t d_in = slot.d_in;
  slot.coarse = at::zeros({packed_panels_size(d_in, num_experts_, 2)}, at::kBFloat16);
  slot.radius = at::zeros_like(slot.bias);
  auto* const coarse = static_cast<std::uint16_t*>(slot.coarse.mutable_data_ptr());
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    double lost = 0;
    double size = 0;
    for (std::int64_t d = 0; d < d_in; ++d) {
      const float exact = slot.gates.const_data_ptr<float>()[e * d_in + d];
      const std::uint16_t rounded = f32_to_bf16(exact);
      coarse[packed_panels_index(d, e, d_in, num_experts_, 2, kProjectColumns)] = rounded;
      lost += std::pow(static_cast<double>(exact) - bf16_to_f32(rounded), 2);
      size += static_cast<double>(exact) * exact;
    }
    slot.radius.mutable_data_ptr<float>()[e] =
        static_cast<float>(1.01 * (std::sqrt(lost) + static_cast<double>(d_in) * 0x1p-23 * std::sqrt(size)));
  }
}

std::vector<Mixture> GateRouter::route_group(const std::vector<int>& slot_idxs, const at::Tensor& x) const {
  const at::NoGradGuard no_gradient;
  SKEIN_CHECK(!slot_idxs.empty() && x.dim() == 2 && x.stride(1) == 1);
  std::vector<Mixture> mixtures;
  for (const int s : slot_idxs) {
    SKEIN_CHECK(x.size(1) == slots_[s].d_in);
    if (means_ == Means::kLibtorch) {
      mixtures.push_back(route_by_libtorch(slots_[s], x));
      continue;
    }
    mixtures.push_back(Mixture{at::empty({x.size(0), options_.top_k}, x.options().dtype(at::kInt)),
                               at::empty({x.size(0), options_.top_k}, x.options().dtype(at::kFloat))});
  }
  if (means_ == Means::kLibtorch) return mixtures;
  SKEIN_CHECK(x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat);
  const std::int64_t num_blocks = (x.size(0) + kBlockRows - 1) / kBlockRows;
  at::parallel_for(0, num_blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      route_rows(slot_idxs, x, i * kBlockRows, std::min(x.size(0), (i + 1) * kBlockRows), mixtures);
    }
  });
  return mixtures;
}

void GateRouter::route_rows(const std::vector<int>& slot_idxs, const at::Tensor& x, std::int64_t begin,
                            std::int64_t end, const std::vector<Mixture>& mixtures) const {
  static thread_local std::vector<float> scores, room;
  static thread_local std::vector<RowStatistics> statistics;
  const ChoiceKernels& kernels = choice_kernels();
  const std::int64_t d = x.size(1);
  const std::int64_t num_rows = end - begin;
  const Rows rows = f32_rows(x, begin, num_rows);
  statistics.resize(num_rows);
  for (std::int64_t n = 0; n < num_rows; ++n) statistics[n] = kernels.statistics(rows.data + n * rows.stride, d);

  const std::int64_t columns = round_up(num_experts_, kColumnBlock);
  const auto scale = static_cast<float>(1 / (std::sqrt(static_cast<double>(d)) * options_.temperature));
  scores.resize(num_rows * columns);
  room.resize(columns);
  for (std::size_t i = 0; i < slot_idxs.size(); ++i) {
    const Slot& slot = slots_[slot_idxs[i]];
    const float* const bias = slot.bias.const_data_ptr<float>();
    if (means_ == Means::kScores) {
      project_all(lora_kernels_f32(), slot.gates.const_data_ptr<float>(), rows.data, rows.stride, d, num_rows, columns,
                  scores.data());
    } else {
      project_all(lora_kernels_bf16(), static_cast<const std::uint16_t*>(slot.coarse.const_data_ptr()),
                  static_cast<const std::uint16_t*>(x.const_data_ptr()) + begin * x.stride(0), x.stride(0), d, num_rows,
                  columns, scores.data());
    }
    for (std::int64_t n = 0; n < num_rows; ++n) {
      float* const of_row = scores.data() + n * columns;
      if (means_ == Means::kCoarseScores) {
        kernels.sharpen(of_row, bias, slot.radius.const_data_ptr<float>(), statistics[n].norm,
                        rows.data + n * rows.stride, slot.gates.const_data_ptr<float>(), d, columns, options_.top_k,
                        room.data());
      }
      const std::int64_t at = (begin + n) * options_.top_k;
      kernels.choose(of_row, bias, statistics[n].inverse_deviation * scale, columns, options_.top_k,
                     options_.softmax_over_chosen, mixtures[i].ids.mutable_data_ptr<std::int32_t>() + at,
                     mixtures[i].weights.mutable_data_ptr<float>() + at);
    }
  }
}

// The same by libtorch's operations: any device, no synchronisation.
Mixture GateRouter::route_by_libtorch(const Slot& slot, const at::Tensor& x) const {
  const at::Tensor u = x.to(at::kFloat);
  at::Tensor scores;  // (N, E)
  if (options_.bf16_scores) {
    const at::Tensor normalised = at::layer_norm(u, {slot.d_in}, {}, {}, kLayerNormEps);
    scores = at::linear(normalised.to(at::kBFloat16), slot.gates.to(at::kBFloat16)).to(at::kFloat);
  } else {
    const at::Tensor deviation =
        at::rsqrt(at::var(u, {1}, /*correction=*/at::Scalar(0), /*keepdim=*/true) + kLayerNormEps);
    scores = at::linear(u, slot.gates) * deviation;
  }
  scores = scores / (std::sqrt(static_cast<double>(slot.d_in)) * options_.temperature) + slot.bias;
  const float nothing = -std::numeric_limits<float>::infinity();
  scores = at::nan_to_num(scores, nothing, std::numeric_limits<float>::infinity(), nothing);
  const auto [sorted, order] = at::sort(scores, /*stable=*/true, /*dim=*/1, /*descending=*/true);
  const at::Tensor best = sorted.narrow(1, 0, options_.top_k);
  at::Tensor weights;
  if (options_.softmax_over_chosen) {
    weights = at::softmax(best, 1);
  } else {
    const at::Tensor p = at::softmax(sorted, 1).narrow(1, 0, options_.top_k);
    weights = p / (p.sum(1, /*keepdim=*/true) + 1e-6);
  }
  // Rows where nothing can be chosen: their softmax is NaN.
  return Mixture{order.narrow(1, 0, options_.top_k).to(at::kInt), at::nan_to_num(weights, 0.0)};
}

}  // namespace skein
