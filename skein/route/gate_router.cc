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
#include "skein/route/best_of_scores.h"
#include "skein/route/choice_kernels.h"

namespace skein {
namespace {

constexpr double kLayerNormEps = 1e-5;
constexpr double kL2Eps = 1e-6;
constexpr std::int64_t kBlockRows = 64;  // their f32 copies and the gates of a slot share the second-level cache
constexpr float kNothing = -std::numeric_limits<float>::infinity();

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
const GateTensors& gate_at(const RouterKind& kind, const ExpertBank& bank, const std::vector<GateFile>& gates, int e,
                           int slot_idx) {
  const SlotName& slot = bank.slot_names()[slot_idx];
  for (const GateTensors& module : gates[e].modules) {
    if (module.slot_idx != slot_idx) continue;
    const bool one = kind.score == RouterKind::Score::kNormalised;
    const auto size = static_cast<std::int64_t>(module.directions.size());
    if ((one && module.num_directions != 1) || size != module.num_directions * slot.d_in) {
      throw Failure({concat("expert ", bank.names()[e], ": its gate of ", slot.module, " has ", module.num_directions,
                            " directions and ", size, " numbers; ", kind.name, " needs ", one ? "1" : "directions",
                            " of ", slot.d_in),
                     ErrorKind::kUsage});
    }
    return module;
  }
  throw Failure({concat("expert ", bank.names()[e], " has no ", kind.gates, " gate for ", slot.module,
                        kind.gates == std::string("phatgoose") ? "; train one (skein train gate)"
                                                               : "; make one (skein gates fit)",
                        ", switch the expert off (--without), or route without gates"),
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

// scores (num_rows, columns) = x . gates, panel by panel; side by side unless the rows are.
template <typename T>
void project_all(const LoraKernels<T>& kernels, const T* gates, const T* x, std::int64_t x_stride, std::int64_t d,
                 std::int64_t num_rows, std::int64_t columns, float* scores, std::int64_t scores_stride) {
  const std::int64_t panels = (columns + kProjectColumns - 1) / kProjectColumns;
  at::parallel_for(0, panels, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first * kProjectColumns; c < std::min(columns, last * kProjectColumns);
         c += kProjectColumns) {
      kernels.project(gates + c * d, d / LoraKernels<T>::kPack, std::min(kProjectColumns, columns - c), x, x_stride,
                      num_rows, scores + c, scores_stride);
    }
  });
}

// The length of each expert's scores, (E) padded with zeros: |G_e u|.
void fold(const float* raw, const std::vector<std::int32_t>& begin, float* scores, std::int64_t columns) {
  const std::size_t num_experts = begin.size() - 1;
  for (std::size_t e = 0; e < num_experts; ++e) {
    if (begin[e + 1] == begin[e] + 1) {
      scores[e] = std::fabs(raw[begin[e]]);
      continue;
    }
    float squares = 0;
    for (std::int32_t c = begin[e]; c < begin[e + 1]; ++c) squares += raw[c] * raw[c];
    scores[e] = std::sqrt(squares);
  }
  std::fill(scores + num_experts, scores + columns, 0.0F);
}

}  // namespace

GateRouter::GateRouter(const RouterOptions& options, const ExpertBank& bank, const std::vector<GateFile>& gates,
                       const std::vector<bool>& is_allowed, const ComputeOptions& compute, bool by_libtorch)
    : Router(options.use),
      options_(options),
      score_(router_kind(options.kind).score),
      num_experts_(bank.num_experts()),
      top_k_(options.kind == "smear" ? bank.num_experts() : options.top_k),
      means_(Means::kScores) {
  const bool all_even = std::all_of(bank.slot_names().begin(), bank.slot_names().end(),
                                    [](const SlotName& slot) { return slot.d_in % 2 == 0; });
  if (!compute.device.is_cpu() || options.bf16_scores || by_libtorch) {
    means_ = Means::kLibtorch;
  } else if (is_normalised() && options.top_p >= 1 && compute.dtype == at::kBFloat16 && all_even &&
             num_experts_ >= kColumnBlock * 2 && top_k_ * 8 <= num_experts_ && lora_kernels_bf16_avx512() != nullptr) {
    means_ = Means::kCoarseScores;
  }
  std::vector<GateFile> none;
  if (gates.empty()) none.resize(num_experts_);
  const std::vector<GateFile>& all = gates.empty() ? none : gates;
  SKEIN_CHECK(static_cast<std::int64_t>(all.size()) == num_experts_);
  const RouterKind& kind = router_kind(options.kind);
  for (int s = 0; s < static_cast<int>(bank.slot_names().size()); ++s) {
    std::vector<const GateTensors*> of_slot(num_experts_, nullptr);
    for (int e = 0; e < num_experts_; ++e) {
      if (is_allowed[e] && bank.slot(s).attaches(e)) of_slot[e] = &gate_at(kind, bank, all, e, s);
    }
    slots_.push_back(make_slot(of_slot, bank.slot_names()[s].d_in, compute));
  }
}

GateRouter::Slot GateRouter::make_slot(const std::vector<const GateTensors*>& gates, std::int64_t d_in,
                                       const ComputeOptions& compute) const {
  Slot slot;
  slot.d_in = d_in;
  slot.begin.push_back(0);
  // A normalised score has its column whether the expert has a gate or not: scores need no folding then.
  for (const GateTensors* gate : gates) {
    slot.begin.push_back(slot.begin.back() + static_cast<std::int32_t>(is_normalised()   ? 1
                                                                       : gate == nullptr ? 0
                                                                                         : gate->num_directions));
  }
  slot.num_columns = slot.begin.back();
  const bool padded = means_ != Means::kLibtorch;
  slot.gates = at::zeros({slot.num_columns, d_in}, at::kFloat);
  slot.bias = at::full({padded ? round_up(num_experts_, kColumnBlock) : num_experts_}, kNothing, at::kFloat);
  float* to = slot.gates.mutable_data_ptr<float>();
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    if (gates[e] == nullptr) continue;
    slot.bias.mutable_data_ptr<float>()[e] = 0;
    float* const rows = to + slot.begin[e] * d_in;
    if (is_normalised()) {
      const std::vector<double> gate = normalised_gate(gates[e]->directions, options_.gate_norm);
      std::transform(gate.begin(), gate.end(), rows, [](double value) { return static_cast<float>(value); });
    } else {
      std::copy(gates[e]->directions.begin(), gates[e]->directions.end(), rows);
    }
  }
  if (means_ == Means::kCoarseScores) slot.radius = coarse_radius(slot);
  if (means_ == Means::kLibtorch) {
    slot.gates = slot.gates.to(compute.device);
    slot.bias = slot.bias.to(compute.device);
    std::vector<std::int64_t> owner;
    for (std::int64_t e = 0; e < num_experts_; ++e) owner.resize(slot.begin[e + 1], e);
    slot.owner = at::tensor(owner, at::kLong).to(compute.device);
  }
  return slot;
}

// With G = H + R, H rounded to bf16: |u . G - u . H| <= |u| |R|, and summing D products in f32 adds at most D 2^-23 |u|
// |H|.
at::Tensor GateRouter::coarse_radius(const Slot& slot) const {
  const at::Tensor radius = at::zeros_like(slot.bias);
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    double lost = 0;
    double size = 0;
    for (std::int64_t d = 0; d < slot.d_in; ++d) {
      const float exact = slot.gates.const_data_ptr<float>()[e * slot.d_in + d];
      lost += std::pow(static_cast<double>(exact) - bf16_to_f32(f32_to_bf16(exact)), 2);
      size += static_cast<double>(exact) * exact;
    }
    radius.mutable_data_ptr<float>()[e] =
        static_cast<float>(1.01 * (std::sqrt(lost) + static_cast<double>(slot.d_in) * 0x1p-23 * std::sqrt(size)));
  }
  return radius;
}

GateRouter::Pack GateRouter::make_pack(const std::vector<int>& slot_idxs) const {
  const std::int64_t d_in = slots_[slot_idxs.front()].d_in;
  const bool coarse = means_ == Means::kCoarseScores;
  Pack pack;
  for (const int s : slot_idxs) {
    pack.begin.push_back(pack.num_columns);
    pack.stride = pack.num_columns + round_up(slots_[s].num_columns, kColumnBlock);
    pack.num_columns += slots_[s].num_columns;
  }
  pack.stride = std::max(pack.stride, round_up(pack.num_columns, kColumnBlock));  // what the product writes
  pack.gates =
      at::zeros({packed_panels_size(d_in, pack.num_columns, coarse ? 2 : 1)}, coarse ? at::kBFloat16 : at::kFloat);
  void* const to = pack.gates.mutable_data_ptr();
  for (std::size_t i = 0; i < slot_idxs.size(); ++i) {
    const Slot& slot = slots_[slot_idxs[i]];
    const float* const from = slot.gates.const_data_ptr<float>();
    for (std::int64_t c = 0; c < slot.num_columns; ++c) {
      for (std::int64_t d = 0; d < d_in; ++d) {
        const std::int64_t at =
            packed_panels_index(d, pack.begin[i] + c, d_in, pack.num_columns, coarse ? 2 : 1, kProjectColumns);
        if (coarse) {
          static_cast<std::uint16_t*>(to)[at] = f32_to_bf16(from[c * d_in + d]);
        } else {
          static_cast<float*>(to)[at] = from[c * d_in + d];
        }
      }
    }
  }
  return pack;
}

const GateRouter::Pack& GateRouter::pack_of(const std::vector<int>& slot_idxs) const {
  const std::lock_guard lock(packs_mutex_);
  const auto found = packs_.find(slot_idxs);
  return found != packs_.end() ? found->second : packs_.emplace(slot_idxs, make_pack(slot_idxs)).first->second;
}

std::vector<Mixture> GateRouter::route_group(const std::vector<int>& slot_idxs, const at::Tensor& x,
                                             const at::Tensor& row_bias) const {
  const at::NoGradGuard no_gradient;
  SKEIN_CHECK(!slot_idxs.empty() && x.dim() == 2 && x.stride(1) == 1);
  SKEIN_CHECK(!row_bias.defined() || (row_bias.size(0) == x.size(0) && row_bias.size(1) == num_experts_));
  // A bf16 pool may be asked about rows in f32: the mean of a prompt.
  const bool by_libtorch =
      means_ == Means::kLibtorch || (means_ == Means::kCoarseScores && x.scalar_type() != at::kBFloat16);
  std::vector<Mixture> mixtures;
  for (const int s : slot_idxs) {
    SKEIN_CHECK(x.size(1) == slots_[s].d_in);
    if (by_libtorch) {
      mixtures.push_back(route_by_libtorch(slots_[s], x, row_bias));
      continue;
    }
    mixtures.push_back(Mixture{at::empty({x.size(0), top_k_}, x.options().dtype(at::kInt)),
                               at::empty({x.size(0), top_k_}, x.options().dtype(at::kFloat))});
  }
  if (by_libtorch) return mixtures;
  SKEIN_CHECK(x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat);
  const at::Tensor bias = row_bias.defined() ? row_bias.to(at::kFloat).contiguous() : row_bias;
  const Pack& pack = pack_of(slot_idxs);
  // Every thread gets rows where there are enough; one row's product is shared out by panels.
  const std::int64_t threads = at::get_num_threads();
  const std::int64_t block_rows = std::clamp<std::int64_t>((x.size(0) + threads - 1) / threads, 1, kBlockRows);
  const std::int64_t num_blocks = (x.size(0) + block_rows - 1) / block_rows;
  at::parallel_for(0, num_blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      route_rows(slot_idxs, pack, x, bias, i * block_rows, std::min(x.size(0), (i + 1) * block_rows), mixtures);
    }
  });
  return mixtures;
}

void GateRouter::route_rows(const std::vector<int>& slot_idxs, const Pack& pack, const at::Tensor& x,
                            const at::Tensor& row_bias, std::int64_t begin, std::int64_t end,
                            const std::vector<Mixture>& mixtures) const {
  static thread_local std::vector<float> scores, folded, room, sum_bias, raw_bias;
  static thread_local std::vector<RowStatistics> statistics;
  const ChoiceKernels& kernels = choice_kernels();
  const std::int64_t d = x.size(1);
  const std::int64_t num_rows = end - begin;
  const Rows rows = f32_rows(x, begin, num_rows);
  statistics.assign(num_rows, RowStatistics{1, 1});
  if (is_normalised()) {
    for (std::int64_t n = 0; n < num_rows; ++n) statistics[n] = kernels.statistics(rows.data + n * rows.stride, d);
  }
  const std::int64_t experts = round_up(num_experts_, kColumnBlock);
  const double shrunk = is_normalised() ? std::sqrt(static_cast<double>(d)) : 1;
  const auto scale = static_cast<float>(1 / (shrunk * options_.temperature));
  folded.resize(experts);
  room.resize(experts);
  scores.resize(num_rows * pack.stride);
  const std::int64_t columns = round_up(pack.num_columns, kColumnBlock);
  if (means_ == Means::kScores) {
    project_all(lora_kernels_f32(), pack.gates.const_data_ptr<float>(), rows.data, rows.stride, d, num_rows, columns,
                scores.data(), pack.stride);
  } else {
    project_all(lora_kernels_bf16(), static_cast<const std::uint16_t*>(pack.gates.const_data_ptr()),
                static_cast<const std::uint16_t*>(x.const_data_ptr()) + begin * x.stride(0), x.stride(0), d, num_rows,
                columns, scores.data(), pack.stride);
  }
  // The last slot first: a slot's padding lies over the columns of the next, and the kernels write there.
  for (std::size_t i = slot_idxs.size(); i-- > 0;) {
    const Slot& slot = slots_[slot_idxs[i]];
    const std::int64_t slot_columns = round_up(slot.num_columns, kColumnBlock);
    room.resize(std::max(room.size(), static_cast<std::size_t>(slot_columns)));
    for (std::int64_t n = 0; n < num_rows; ++n) {
      float* of_row = scores.data() + n * pack.stride + pack.begin[i];
      const float factor = statistics[n].inverse_deviation * scale;
      const float* bias = slot.bias.const_data_ptr<float>();
      const float* bias_of_raw = bias;  // in the unit of the scores before they are scaled
      if (row_bias.defined()) {
        sum_bias.assign(bias, bias + experts);
        raw_bias.assign(bias, bias + experts);
        const float* const more = row_bias.const_data_ptr<float>() + (begin + n) * num_experts_;
        for (std::int64_t e = 0; e < num_experts_; ++e) {
          sum_bias[e] += more[e] / static_cast<float>(options_.temperature);
          raw_bias[e] = sum_bias[e] / factor;
        }
        bias = sum_bias.data();
        bias_of_raw = raw_bias.data();
      }
      if (means_ == Means::kCoarseScores) {
        kernels.sharpen(of_row, bias_of_raw, slot.radius.const_data_ptr<float>(), statistics[n].norm,
                        rows.data + n * rows.stride, slot.gates.const_data_ptr<float>(), d, slot_columns, top_k_,
                        room.data());
      }
      if (!is_normalised()) {
        fold(of_row, slot.begin, folded.data(), experts);
        of_row = folded.data();
      }
      const std::int64_t at = (begin + n) * top_k_;
      kernels.choose(of_row, bias, factor, experts, top_k_, options_.softmax_over_chosen,
                     static_cast<float>(options_.top_p), mixtures[i].ids.mutable_data_ptr<std::int32_t>() + at,
                     mixtures[i].weights.mutable_data_ptr<float>() + at);
    }
  }
}

// The same by libtorch's operations: any device, no synchronisation.
Mixture GateRouter::route_by_libtorch(const Slot& slot, const at::Tensor& x, const at::Tensor& row_bias) const {
  at::Tensor u = x.to(at::kFloat);
  at::Tensor scale;  // (N, 1), where scores are scaled after the product
  if (is_normalised() && options_.bf16_scores) {
    u = at::layer_norm(u, {slot.d_in}, {}, {}, kLayerNormEps);
  } else if (is_normalised()) {
    scale = at::rsqrt(at::var(u, {1}, /*correction=*/at::Scalar(0), /*keepdim=*/true) + kLayerNormEps);
  }
  at::Tensor scores = options_.bf16_scores
                          ? at::linear(u.to(at::kBFloat16), slot.gates.to(at::kBFloat16)).to(at::kFloat)
                          : at::linear(u, slot.gates);  // (N, columns)
  if (scale.defined()) scores = scores * scale;
  if (is_normalised()) {
    scores = scores / std::sqrt(static_cast<double>(slot.d_in));
  } else {
    scores = at::zeros({x.size(0), num_experts_}, scores.options()).index_add(1, slot.owner, scores.square()).sqrt();
  }
  if (row_bias.defined()) scores = scores + row_bias;
  scores = scores / options_.temperature + slot.bias.narrow(0, 0, num_experts_);
  return best_of_scores(scores, top_k_, options_);
}

}  // namespace skein
