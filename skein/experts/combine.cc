#include "skein/experts/combine.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

const LoraTensors* module_at(const LoraAdapter& adapter, int slot_idx) {
  const auto found = std::lower_bound(adapter.modules.begin(), adapter.modules.end(), slot_idx,
                                      [](const LoraTensors& module, int wanted) { return module.slot_idx < wanted; });
  return found != adapter.modules.end() && found->slot_idx == slot_idx ? &*found : nullptr;
}

// An adapter without modules yet that goes with these.
LoraAdapter like(const LoraAdapter& adapter) {
  LoraAdapter result;
  result.config.base_model_name_or_path = adapter.config.base_model_name_or_path;
  result.config.task_type = adapter.config.task_type;
  return result;
}

// What the modules are, where they agree; write_lora_adapter spells out the rest.
void describe(LoraAdapter& adapter) {
  std::int64_t rank = 0;
  for (const LoraTensors& module : adapter.modules) rank = std::max(rank, module.rank);
  adapter.config.rank = std::max<std::int64_t>(1, rank);
  adapter.config.alpha = static_cast<double>(adapter.config.rank);
}

// The modules of all adapters by slot: per slot (expert, module).
std::map<int, std::vector<std::pair<std::size_t, const LoraTensors*>>> by_slot(
    const std::vector<const LoraAdapter*>& adapters) {
  std::map<int, std::vector<std::pair<std::size_t, const LoraTensors*>>> slots;
  for (std::size_t e = 0; e < adapters.size(); ++e) {
    for (const LoraTensors& module : adapters[e]->modules) slots[module.slot_idx].emplace_back(e, &module);
  }
  return slots;
}

}  // namespace

LoraAdapter weighted_factors(const std::vector<const LoraAdapter*>& adapters, const std::vector<double>& weights) {
  SKEIN_CHECK(!adapters.empty() && adapters.size() == weights.size());
  LoraAdapter result = like(*adapters.front());
  for (const auto& [slot_idx, modules] : by_slot(adapters)) {
    LoraTensors sum{.slot_idx = slot_idx};
    for (const auto& [e, module] : modules) sum.rank = std::max(sum.rank, module->rank);
    const auto d_in = static_cast<std::int64_t>(modules.front().second->a.size()) / modules.front().second->rank;
    const auto d_out = static_cast<std::int64_t>(modules.front().second->b.size()) / modules.front().second->rank;
    std::vector<double> a(sum.rank * d_in), b(d_out * sum.rank);
    for (const auto& [e, module] : modules) {
      for (std::int64_t i = 0; i < module->rank * d_in; ++i) a[i] += weights[e] * module->a[i];
      for (std::int64_t c = 0; c < d_out; ++c) {
        for (std::int64_t r = 0; r < module->rank; ++r) {
          b[c * sum.rank + r] += weights[e] * module->scale * module->b[c * module->rank + r];
        }
      }
    }
    sum.a.assign(a.begin(), a.end());
    sum.b.assign(b.begin(), b.end());
    result.modules.push_back(std::move(sum));
  }
  describe(result);
  return result;
}

LoraAdapter without_general(const LoraAdapter& adapter, const std::vector<const LoraAdapter*>& general,
                            const std::vector<SlotName>& slots) {
  LoraAdapter result = adapter;
  const auto share = 1.0F / static_cast<float>(general.size());
  for (LoraTensors& module : result.modules) {
    std::vector<float> a(module.a.size(), 0.0F), b(module.b.size(), 0.0F);
    for (const LoraAdapter* other : general) {
      const LoraTensors* taken = module_at(*other, module.slot_idx);
      if (taken == nullptr || taken->rank != module.rank) {
        throw Failure(
            {concat("general expert ", printable(other->path), " has rank ", taken == nullptr ? 0 : taken->rank, " at ",
                    slots[module.slot_idx].module, " and ", printable(adapter.path), " rank ", module.rank,
                    "; GenKnowSub subtracts A and B, which needs the same rank"),
             ErrorKind::kUsage});
      }
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += taken->a[i];
      for (std::size_t i = 0; i < b.size(); ++i) b[i] += taken->b[i];
    }
    for (std::size_t i = 0; i < a.size(); ++i) module.a[i] -= a[i] * share;
    for (std::size_t i = 0; i < b.size(); ++i) module.b[i] -= b[i] * share;
  }
  return result;
}

LoraAdapter concatenated(const std::vector<const LoraAdapter*>& adapters,
                         const std::vector<std::vector<double>>& weights) {
  SKEIN_CHECK(!adapters.empty());
  LoraAdapter result = like(*adapters.front());
  for (const auto& [slot_idx, modules] : by_slot(adapters)) {
    LoraTensors joined{.slot_idx = slot_idx};
    const std::vector<double>& of_slot = weights.at(static_cast<std::size_t>(slot_idx));
    for (const auto& [e, module] : modules) joined.rank += of_slot.at(e) != 0 ? module->rank : 0;
    if (joined.rank == 0) continue;
    const auto d_out = static_cast<std::int64_t>(modules.front().second->b.size()) / modules.front().second->rank;
    joined.b.resize(d_out * joined.rank);
    std::int64_t first = 0;
    for (const auto& [e, module] : modules) {
      if (of_slot[e] == 0) continue;
      joined.a.insert(joined.a.end(), module->a.begin(), module->a.end());
      const auto factor = static_cast<float>(of_slot[e] * module->scale);
      for (std::int64_t c = 0; c < d_out; ++c) {
        for (std::int64_t r = 0; r < module->rank; ++r) {
          joined.b[c * joined.rank + first + r] = factor * module->b[c * module->rank + r];
        }
      }
      first += module->rank;
    }
    result.modules.push_back(std::move(joined));
  }
  describe(result);
  return result;
}

LoraTriples singular_triples(const LoraTensors& module, const SlotName& slot) {
  const at::Tensor a = at::tensor(module.a).view({module.rank, slot.d_in}).to(at::kDouble);
  const at::Tensor b = at::tensor(module.b).view({slot.d_out, module.rank}).to(at::kDouble) * module.scale;
  const auto [q_a, r_a] = at::linalg_qr(a.t(), "reduced");
  const auto [q_b, r_b] = at::linalg_qr(b, "reduced");
  const auto [u, sigma, vh] = at::linalg_svd(r_b.matmul(r_a.t()), /*full_matrices=*/false);
  return {q_b.matmul(u), sigma, q_a.matmul(vh.t())};
}

LoraAdapter of_rank(const LoraAdapter& adapter, const std::vector<SlotName>& slots, std::int64_t rank,
                    std::vector<double>* lost) {
  LoraAdapter result = like(adapter);
  for (const LoraTensors& module : adapter.modules) {
    if (module.rank <= rank) {
      result.modules.push_back(module);
      if (lost != nullptr) lost->push_back(0);
      continue;
    }
    const LoraTriples triples = singular_triples(module, slots[static_cast<std::size_t>(module.slot_idx)]);
    const std::int64_t kept = std::min(rank, triples.sigma.size(0));
    const at::Tensor root = triples.sigma.narrow(0, 0, kept).sqrt();
    result.modules.push_back({module.slot_idx, kept, 1.0,
                              floats_of((triples.v.narrow(1, 0, kept) * root).t()),  // (R, D_in)
                              floats_of(triples.u.narrow(1, 0, kept) * root)});      // (D_out, R)
    if (lost != nullptr) {
      const double all = triples.sigma.norm().item<double>();
      const double rest = triples.sigma.narrow(0, kept, triples.sigma.size(0) - kept).norm().item<double>();
      lost->push_back(all > 0 ? rest / all : 0);
    }
  }
  describe(result);
  return result;
}

}  // namespace skein
