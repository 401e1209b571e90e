// Routers that score experts by directions in the space of a slot's input: softmax of the scores, top k.
//
//   normalised (PHATGOOSE, arXiv 2402.05859, section 3.3):  s_e = LN(u) . G_e / sqrt(D)
//   magnitude (Arrow, 2405.11157; SpectR, 2504.03454):      s_e = |G_e u|, G_e of one row or several
//   p = softmax((s + row bias) / temperature),  w_e = p_e / (sum of the k largest p + 1e-6)
//
// Normalised: G_e is the normalised gate less its mean. As LN(u) has mean zero the mean of G_e adds nothing, and
// without it neither does that of u: s_e = (u . G_e) / (sd(u) sqrt(D)), so that u itself is multiplied, in f32, and
// scaled afterwards.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "skein/route/router.h"

namespace skein {

class GateRouter : public Router {
 public:
  // is_allowed (E): experts not switched off. by_libtorch: not with the CPU's own kernels; other devices and bf16
  // scores always are. Throws Failure (kUsage) where an allowed expert has no gate.
  GateRouter(const RouterOptions& options, const ExpertBank& bank, const std::vector<GateFile>& gates,
             const std::vector<bool>& is_allowed, const ComputeOptions& compute, bool by_libtorch = false);
  std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& x,
                                   const at::Tensor& row_bias) const override;

 private:
  struct Slot {
    std::int64_t d_in = 0;
    std::int64_t num_columns = 0;     // directions of all experts: E, or more where experts have several
    std::vector<std::int32_t> begin;  // (E + 1): expert e's directions are the columns [begin[e], begin[e + 1])
    at::Tensor gates;                 // (columns, D_in) f32
    at::Tensor bias;                  // (E, padded for the kernels): 0, or -inf for an expert that cannot be chosen
    at::Tensor radius;  // kCoarseScores: (E padded) how far a coarse score may be off, for a row of length 1
    at::Tensor owner;   // kLibtorch: (columns) int64, the expert of each
  };
  // The gates of slots that read one input side by side, packed for one product (experts/lora_kernels.h): f32, or bf16
  // for coarse scores.
  struct Pack {
    std::vector<std::int64_t> begin;  // of each slot's columns
    std::int64_t num_columns = 0;     // of all slots
    std::int64_t stride = 0;          // of a row of scores: room for the padding
    at::Tensor gates;
  };
  enum class Means {
    kScores,        // the CPU's kernels, all scores in f32
    kCoarseScores,  // bf16 rows, few of many experts: all scores with bf16 gates, then those that matter in f32
    kLibtorch,      // other devices
  };
  Slot make_slot(const std::vector<const GateTensors*>& gates, std::int64_t d_in, const ComputeOptions& compute) const;
  at::Tensor coarse_radius(const Slot& slot) const;
  // Made when the slots are first seen together, then kept.
  const Pack& pack_of(const std::vector<int>& slot_idxs) const;
  Pack make_pack(const std::vector<int>& slot_idxs) const;
  void route_rows(const std::vector<int>& slot_idxs, const Pack& pack, const at::Tensor& x, const at::Tensor& row_bias,
                  std::int64_t begin, std::int64_t end, const std::vector<Mixture>& mixtures) const;
  Mixture route_by_libtorch(const Slot& slot, const at::Tensor& x, const at::Tensor& row_bias) const;
  bool is_normalised() const { return score_ == RouterKind::Score::kNormalised; }

  RouterOptions options_;
  RouterKind::Score score_;
  std::int64_t num_experts_;
  std::int64_t top_k_;
  Means means_;
  std::vector<Slot> slots_;
  mutable std::mutex packs_mutex_;
  mutable std::map<std::vector<int>, Pack> packs_;
};

}  // namespace skein
