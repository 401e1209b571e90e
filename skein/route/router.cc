#include "skein/route/router.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/route/best_of_scores.h"
#include "skein/route/gate_router.h"

namespace skein {
namespace {

Failure usage(std::string message) { return Failure(Error{std::move(message), ErrorKind::kUsage}); }

int expert_named(const ExpertBank& bank, const std::string& name) {
  const auto& names = bank.names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  std::string known;
  for (const std::string& other : names) known += (known.empty() ? "" : ", ") + other;
  throw usage(concat("no expert ", printable(name), " in this pool; it holds ", known));
}

// The same experts and weights for every row and slot.
class FixedRouter : public Router {
 public:
  FixedRouter(const RouterUse& use, const std::vector<int>& ids, const std::vector<float>& weights,
              const ComputeOptions& compute)
      : Router(use),
        ids_(at::tensor(ids, at::kInt).to(compute.device)),
        weights_(at::tensor(weights).to(compute.device)) {}

  std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& x,
                                   const at::Tensor& /*row_bias*/) const override {
    const auto rows = [&](const at::Tensor& row) {
      return row.unsqueeze(0).expand({x.size(0), row.size(0)}).contiguous();
    };
    return std::vector<Mixture>(slot_idxs.size(), Mixture{rows(ids_), rows(weights_)});
  }

 private:
  at::Tensor ids_;      // (k) int32
  at::Tensor weights_;  // (k)
};

std::uint64_t mixed(std::uint64_t state) {  // splitmix64's output function
  state = (state ^ (state >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  state = (state ^ (state >> 27U)) * 0x94d049bb133111ebULL;
  return state ^ (state >> 31U);
}

// k experts drawn without replacement from those that may be chosen.
class UniformRouter : public Router {
 public:
  UniformRouter(const RouterOptions& options, const ExpertBank& bank, const std::vector<bool>& is_allowed)
      : Router(options.use), top_k_(options.top_k), seed_(options.seed) {
    for (std::size_t s = 0; s < bank.slot_names().size(); ++s) {
      std::vector<std::int32_t> candidates;
      for (int e = 0; e < bank.num_experts(); ++e) {
        if (is_allowed[e] && bank.slot(static_cast<int>(s)).attaches(e)) candidates.push_back(e);
      }
      candidates_.push_back(std::move(candidates));
    }
  }

  std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& x,
                                   const at::Tensor& /*row_bias*/) const override {
    const at::Tensor rows = x.detach().to(at::kCPU, at::kFloat).contiguous();
    std::vector<std::uint64_t> row_keys;
    for (std::int64_t n = 0; n < rows.size(0); ++n) {
      std::uint64_t key = mixed(seed_ + 0x9e3779b97f4a7c15ULL);
      for (std::int64_t d = 0; d < rows.size(1); ++d) {
        key =
            (key ^ std::bit_cast<std::uint32_t>(rows.const_data_ptr<float>()[n * rows.size(1) + d])) * 0x100000001b3ULL;
      }
      row_keys.push_back(mixed(key));
    }
    std::vector<Mixture> mixtures;
    for (const int s : slot_idxs) mixtures.push_back(draw(s, row_keys, x.device()));
    return mixtures;
  }

 private:
  Mixture draw(int slot_idx, const std::vector<std::uint64_t>& row_keys, const at::Device& device) const {
    const auto num_rows = static_cast<std::int64_t>(row_keys.size());
    const at::Tensor ids = at::zeros({num_rows, top_k_}, at::kInt);
    const at::Tensor weights = at::zeros({num_rows, top_k_}, at::kFloat);
    const std::size_t count = std::min<std::size_t>(top_k_, candidates_[slot_idx].size());
    for (std::int64_t n = 0; n < num_rows; ++n) {
      std::vector<std::int32_t> left = candidates_[slot_idx];
      std::uint64_t key = mixed(row_keys[n] + static_cast<std::uint64_t>(slot_idx) * 0x9e3779b97f4a7c15ULL);
      for (std::size_t i = 0; i < count; ++i) {
        key = mixed(key + 0x9e3779b97f4a7c15ULL);
        std::swap(left[i], left[i + key % (left.size() - i)]);
        ids.mutable_data_ptr<std::int32_t>()[n * top_k_ + i] = left[i];
        weights.mutable_data_ptr<float>()[n * top_k_ + i] = 1.0F / static_cast<float>(count);
      }
    }
    return Mixture{ids.to(device), weights.to(device)};
  }

  std::int64_t top_k_;
  std::uint64_t seed_;
  std::vector<std::vector<std::int32_t>> candidates_;  // [slot_idx]
};

// By what the caller says of each sequence alone.
class HintRouter : public Router {
 public:
  HintRouter(const RouterOptions& options, const ExpertBank& bank, const std::vector<bool>& is_allowed,
             const ComputeOptions& compute)
      : Router(options.use), options_(options) {
    options_.softmax_over_chosen = true;  // one expert has weight exactly 1
    for (std::size_t s = 0; s < bank.slot_names().size(); ++s) {
      const at::Tensor bias = at::zeros({bank.num_experts()}, at::kFloat);
      for (int e = 0; e < bank.num_experts(); ++e) {
        if (!is_allowed[e] || !bank.slot(static_cast<int>(s)).has(e)) {
          bias.mutable_data_ptr<float>()[e] = -std::numeric_limits<float>::infinity();
        }
      }
      bias_.push_back(bias.to(compute.device));
    }
  }

  std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& /*x*/,
                                   const at::Tensor& row_bias) const override {
    if (!row_bias.defined()) {
      throw Failure({concat("router ", options_.kind,
                            " chooses by the text of each example; this command has no text to give it"),
                     ErrorKind::kUsage});
    }
    std::vector<Mixture> mixtures;
    for (const int s : slot_idxs) {
      mixtures.push_back(best_of_scores(row_bias / options_.temperature + bias_[s], options_.top_k, options_));
    }
    return mixtures;
  }

 private:
  RouterOptions options_;
  std::vector<at::Tensor> bias_;  // [slot_idx] (E): 0, or -inf
};

// The control "shuffled": in every slot, the experts that have it exchange their gates at random.
void shuffle_gates(std::vector<GateFile>& gates, std::int64_t num_slots, std::uint64_t seed) {
  for (std::int64_t s = 0; s < num_slots; ++s) {
    std::vector<GateTensors*> of_slot;
    for (GateFile& gate : gates) {
      for (GateTensors& module : gate.modules) {
        if (module.slot_idx == s) of_slot.push_back(&module);
      }
    }
    std::uint64_t key = mixed(seed + static_cast<std::uint64_t>(s) * 0x9e3779b97f4a7c15ULL);
    for (std::size_t i = of_slot.size(); i > 1; --i) {
      key = mixed(key + 0x9e3779b97f4a7c15ULL);
      std::swap(*of_slot[i - 1], *of_slot[key % i]);
    }
  }
}

// The control "random": normal vectors, each as long as the gate it stands for.
void randomise_gates(std::vector<GateFile>& gates, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  for (GateFile& gate : gates) {
    for (GateTensors& module : gate.modules) {
      const auto d = static_cast<std::int64_t>(module.directions.size()) / module.num_directions;
      for (std::int64_t g = 0; g < module.num_directions; ++g) {
        float* const row = module.directions.data() + g * d;
        double length = 0, drawn_length = 0;
        std::vector<double> drawn;
        for (std::int64_t i = 0; i < d; ++i) {
          drawn.push_back(normal(generator));
          length += static_cast<double>(row[i]) * row[i];
          drawn_length += drawn.back() * drawn.back();
        }
        for (std::int64_t i = 0; i < d; ++i) row[i] = static_cast<float>(drawn[i] * std::sqrt(length / drawn_length));
      }
    }
  }
}

void check_options(const RouterOptions& options, const ExpertBank& bank) {
  if (options.top_k < 1 || options.top_k > bank.num_experts()) {
    throw usage(concat("top-k ", options.top_k, " with a pool of ", bank.num_experts(), " experts; it must be 1 to ",
                       bank.num_experts()));
  }
  if (!(options.temperature > 0) || !std::isfinite(options.temperature)) {
    throw usage(concat("router temperature ", options.temperature, "; it must be above 0"));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw usage(concat("router top-p ", options.top_p, "; it must be above 0 and at most 1"));
  }
}

}  // namespace

std::vector<bool> allowed_experts(const RouterOptions& options, const ExpertBank& bank) {
  std::vector<bool> is_allowed(bank.num_experts(), options.only.empty());
  for (const std::string& name : options.only) is_allowed[expert_named(bank, name)] = true;
  for (const std::string& name : options.without) is_allowed[expert_named(bank, name)] = false;
  if (std::find(is_allowed.begin(), is_allowed.end(), true) == is_allowed.end()) {
    throw usage("every expert of the pool is switched off; leave at least one on");
  }
  return is_allowed;
}

std::shared_ptr<const Router> make_router(const RouterOptions& options, const ExpertBank& bank,
                                          const std::vector<GateFile>& gates, const ComputeOptions& compute) {
  const RouterKind& kind = router_kind(options.kind);
  if (bank.num_experts() == 0) throw usage("the pool has no experts; add one (skein library add)");
  if (options.kind == "single") {
    return std::make_shared<FixedRouter>(options.use, std::vector<int>{expert_named(bank, options.expert)},
                                         std::vector<float>{1}, compute);
  }
  const std::vector<bool> is_allowed = allowed_experts(options, bank);
  if (options.kind == "merged" || options.kind == "merged-factors") {
    std::vector<int> ids;
    for (int e = 0; e < bank.num_experts(); ++e) {
      if (is_allowed[e]) ids.push_back(e);
    }
    return std::make_shared<FixedRouter>(
        options.use, ids, std::vector<float>(ids.size(), 1.0F / static_cast<float>(ids.size())), compute);
  }
  check_options(options, bank);
  if (options.kind == "uniform") return std::make_shared<UniformRouter>(options, bank, is_allowed);
  if (kind.score == RouterKind::Score::kNone) {
    return std::make_shared<HintRouter>(options, bank, is_allowed, compute);
  }
  if (options.gates == RouterOptions::Gates::kOwn) {
    return std::make_shared<GateRouter>(options, bank, gates, is_allowed, compute);
  }
  std::vector<GateFile> other = gates;
  if (options.gates == RouterOptions::Gates::kShuffled) {
    shuffle_gates(other, static_cast<std::int64_t>(bank.slot_names().size()), options.seed);
  } else {
    randomise_gates(other, options.seed);
  }
  return std::make_shared<GateRouter>(options, bank, other, is_allowed, compute);
}

}  // namespace skein
