#include "skein/merge/lora_merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "skein/base/concat.h"
#include "skein/merge/adapter_parameters.h"
#include "skein/merge/adapter_source.h"
#include "skein/merge/delta_merge.h"
#include "skein/merge/low_rank.h"
#include "skein/merge/methods/methods.h"  // the short forms of parameters
#include "skein/merge/peft_rules.h"
#include "skein/merge/plan.h"  // check_parameter_names, method_of

namespace skein::merge {
namespace {

// What the adapters have for one module. Null: that adapter leaves it alone.
struct ModuleInputs {
  std::string module;
  std::int64_t d_out = 0, d_in = 0;
  std::vector<const LoraTensors*> of_adapter;
  const MethodParameters* parameters = nullptr;

  std::int64_t sum_of_ranks() const {
    std::int64_t sum = 0;
    for (const auto* lora : of_adapter) sum += lora == nullptr ? 0 : lora->rank;
    return sum;
  }
  std::int64_t largest_rank() const {
    std::int64_t largest = 0;
    for (const auto* lora : of_adapter) largest = std::max(largest, lora == nullptr ? 0 : lora->rank);
    return largest;
  }
};

// How a method of the recipe treats adapters.
enum class Treatment {
  kSum,      // a weighted sum of products: concatenated, or cut to a rank without loss beyond the best
  kFactors,  // PEFT: A and B each by its rule, with the square roots of the weights
  kDense,    // PEFT: dense products by its rule, then cut to a rank
  kMethod,   // a method of whole models on the dense products, then cut to a rank
};

bool is_peft_name(const std::string& method) {
  static const std::set<std::string> kNames = {
      "cat", "svd", "magnitude_prune", "ties_svd", "dare_ties_svd", "dare_linear_svd", "magnitude_prune_svd"};
  return kNames.contains(method);
}

class AdapterMerger {
 public:
  AdapterMerger(Env& env, const Recipe& recipe, std::uint64_t seed, const std::vector<std::string>& folders)
      : env_(env), recipe_(recipe), seed_(seed), folders_(folders) {}

  Result<LoraAdapter> run(std::vector<std::string>& warnings) {
    SKEIN_TRY(choose_method(warnings));
    SKEIN_TRY(read_adapters());
    SKEIN_TRY(gather_modules());
    SKEIN_TRY(resolve_parameters(warnings));
    SKEIN_TRY(merge_all());
    out_.config = adapters_[0].adapter.config;
    if (recipe_.base_model) out_.config.base_model_name_or_path = recipe_.base_model->path;
    return std::move(out_);
  }

  const std::vector<SlotName>& slots() const { return slots_; }
  MergedAdapter report() const {
    MergedAdapter report{.num_adapters = adapters_.size(), .modules = reports_};
    if (whole_squares_ > 0) report.relative_error = std::sqrt(lost_squares_ / whole_squares_);
    return report;
  }

 private:
  Error fault(const std::string& what) const {
    return Error{concat(recipe_.path, ", line ", recipe_.line, ": ", what)};
  }

  Status choose_method(std::vector<std::string>& warnings) {
    const std::string& name = recipe_.merge_method;
    if (is_peft_name(name)) {
      method_ = MethodInfo{.name = name, .base = BaseRole::kNone};
      method_.parameters = {per_model_number("weight", 1.0, "factor of an adapter"),
                            per_model_number("density", 1.0, "share of its elements that is kept")};
    } else {
      SKEIN_ASSIGN(const MethodInfo* method, method_of(recipe_));
      method_ = *method;
    }
    method_.parameters.push_back(number("rank", std::nullopt, "of the merged adapter"));
    method_.parameters.back().required = false;
    method_.parameters.push_back(choice("convention", {"exact", "peft"}, "of products, or of A and B apart as PEFT"));
    method_.parameters.push_back(choice("majority_sign", {"total", "frequency"}, "PEFT's majority_sign_method"));
    return check_parameter_names(recipe_, method_, warnings);
  }

  Status read_adapters() {
    for (const std::string& folder : folders_) {
      SKEIN_ASSIGN(AdapterFile file, read_adapter_file(env_, folder));
      adapters_.push_back(std::move(file));
    }
    const auto num_models = static_cast<int>(adapters_.size());
    if (num_models < method_.min_models || num_models > method_.max_models) {
      return fault(concat(method_.name, " takes ", method_.min_models,
                          method_.max_models == method_.min_models ? "" : " or more", " models; these are ", num_models,
                          " adapters"));
    }
    return {};
  }

  Status gather_modules() {
    std::map<std::string, ModuleInputs> by_module;
    for (std::size_t i = 0; i < adapters_.size(); ++i) {
      for (const LoraTensors& lora : adapters_[i].adapter.modules) {
        const SlotName& slot = adapters_[i].slots[static_cast<std::size_t>(lora.slot_idx)];
        ModuleInputs& inputs = by_module[slot.module];
        if (inputs.of_adapter.empty()) {
          inputs = {.module = slot.module, .d_out = slot.d_out, .d_in = slot.d_in};
          inputs.of_adapter.resize(adapters_.size());
          slots_.push_back(slot);
        }
        if (inputs.d_out != slot.d_out || inputs.d_in != slot.d_in) {
          return Error{concat(adapters_[i].folder, ": ", printable(slot.module), " fits a weight ",
                              to_string({slot.d_out, slot.d_in}), ", that of another adapter ",
                              to_string({inputs.d_out, inputs.d_in}), "; adapters of different bases")};
        }
        inputs.of_adapter[i] = &lora;
      }
    }
    std::sort(slots_.begin(), slots_.end(), [](const SlotName& a, const SlotName& b) { return a.module < b.module; });
    for (auto& [module, inputs] : by_module) modules_.push_back(std::move(inputs));
    return {};
  }

  Status resolve_parameters(std::vector<std::string>& warnings) {
    std::vector<std::string> names;
    for (const ModuleInputs& inputs : modules_) names.push_back(inputs.module);
    SKEIN_ASSIGN(parameters_, resolve_by_module(recipe_, method_, names, warnings));
    for (std::size_t at = 0; at < modules_.size(); ++at) modules_[at].parameters = &parameters_[at];
    return {};
  }

  Treatment treatment(const MethodParameters& parameters) const {
    const std::string& name = method_.name;
    const bool peft = parameters.choice("convention") == "peft" || is_peft_name(name);
    if (name == "cat" || name == "svd") return Treatment::kSum;
    if (peft && name.ends_with("_svd")) return Treatment::kDense;
    if (peft) return Treatment::kFactors;
    return name == "linear" || name == "task_arithmetic" ? Treatment::kSum : Treatment::kMethod;
  }

  Status merge_all() {
    if (parameters_.empty()) return {};
    const Treatment how = treatment(parameters_[0]);
    if (how == Treatment::kFactors && !is_peft_name(method_.name) && method_.name != "linear" &&
        method_.name != "ties" && method_.name != "dare_ties" && method_.name != "dare_linear") {
      return fault(concat("PEFT has no ", method_.name, "; leave out `convention: peft`"));
    }
    if (how == Treatment::kMethod) return merge_by_method();
    for (const ModuleInputs& inputs : modules_) {
      switch (how) {
        case Treatment::kSum:
          SKEIN_TRY(merge_sum(inputs));
          break;
        case Treatment::kFactors:
          SKEIN_TRY(merge_factors(inputs));
          break;
        default:
          SKEIN_TRY(merge_dense(inputs));
      }
    }
    return {};
  }

  // ---- the four treatments ----

  // Adapter i's weight, normalised where the method asks for it.
  std::vector<double> weights_of(const ModuleInputs& inputs) const {
    const MethodParameters& parameters = *inputs.parameters;
    std::vector<double> weights;
    double sum = 0;
    for (std::size_t i = 0; i < adapters_.size(); ++i) {
      weights.push_back(parameters.number("weight", static_cast<int>(i)));
      sum += weights.back();
    }
    const bool whole_model_method = method_.name == "linear" || method_.name == "task_arithmetic";
    if (!whole_model_method || parameters.choice("convention") == "peft") return weights;
    const double divisor = parameters.flag("normalize") && std::abs(sum) >= 1e-8 ? sum : 1;
    const double lambda = method_.name == "task_arithmetic" ? parameters.number("lambda") : 1;
    for (double& weight : weights) weight *= lambda / divisor;
    return weights;
  }

  // sum w_i s_i B_i A_i as [w_1 s_1 A_1; ...] and [B_1 ...]: exact, of rank r_1 + r_2 + ...
  Status merge_sum(const ModuleInputs& inputs) {
    const std::vector<double> weights = weights_of(inputs);
    Factors whole{.d_out = inputs.d_out, .d_in = inputs.d_in, .rank = inputs.sum_of_ranks(), .b = {}, .a = {}};
    whole.b.resize(static_cast<std::size_t>(whole.d_out * whole.rank));
    std::int64_t column = 0;
    for (std::size_t i = 0; i < inputs.of_adapter.size(); ++i) {
      const LoraTensors* lora = inputs.of_adapter[i];
      if (lora == nullptr) continue;
      const auto factor = static_cast<float>(weights[i] * lora->scale);
      for (const float value : lora->a) whole.a.push_back(factor * value);
      for (std::int64_t row = 0; row < whole.d_out; ++row) {
        std::copy_n(lora->b.begin() + row * lora->rank, lora->rank, whole.b.begin() + row * whole.rank + column);
      }
      column += lora->rank;
    }
    SKEIN_ASSIGN(const std::int64_t rank, rank_of(inputs, method_.name == "svd" ? inputs.largest_rank() : whole.rank));
    if (rank >= whole.rank) {
      add(inputs, std::move(whole), 0, 0);
      return {};
    }
    Truncated cut = truncate(whole, rank);
    const std::vector<float> dense_norm = dense_product(cut.factors, 1);
    add(inputs, std::move(cut.factors), cut.relative_error, squares(dense_norm));
    return {};
  }

  // PEFT: A = rule(sgn sqrt|w s| A_i), B = rule(sqrt|w s| B_i). The product has cross terms: not the merge of products.
  Status merge_factors(const ModuleInputs& inputs) {
    const MethodParameters& parameters = *inputs.parameters;
    std::vector<std::vector<float>> as, bs;
    std::vector<double> of_a, of_b, densities;
    std::int64_t rank = 0;
    for (std::size_t i = 0; i < inputs.of_adapter.size(); ++i) {
      const LoraTensors* lora = inputs.of_adapter[i];
      if (lora == nullptr) continue;
      if (rank != 0 && lora->rank != rank) {
        return fault(concat("PEFT's ", method_.name, " takes adapters of one rank; for ", inputs.module, " they have ",
                            rank, " and ", lora->rank, ": leave out `convention: peft`, or use ", method_.name,
                            "_svd"));
      }
      rank = lora->rank;
      const double scaled = parameters.number("weight", static_cast<int>(i)) * lora->scale;
      of_b.push_back(std::sqrt(std::abs(scaled)));
      of_a.push_back(scaled < 0 ? -of_b.back() : of_b.back());
      densities.push_back(density_of(parameters, static_cast<int>(i)));
      as.push_back(lora->a);
      bs.push_back(lora->b);
    }
    const PeftRule rule = peft_rule(method_.name, parameters.choice("majority_sign") == "frequency");
    Factors merged{.d_out = inputs.d_out, .d_in = inputs.d_in, .rank = rank, .b = {}, .a = {}};
    merged.a =
        combine_by_peft(rule, std::move(as), of_a, densities, stream_key(seed_, inputs.module + ".lora_A.weight"));
    merged.b =
        combine_by_peft(rule, std::move(bs), of_b, densities, stream_key(seed_, inputs.module + ".lora_B.weight"));
    add(inputs, std::move(merged), 0, 0);
    return {};
  }

  Status merge_dense(const ModuleInputs& inputs) {
    const MethodParameters& parameters = *inputs.parameters;
    std::vector<double> weights, densities;
    std::vector<std::vector<float>> deltas;
    for (std::size_t i = 0; i < inputs.of_adapter.size(); ++i) {
      if (inputs.of_adapter[i] == nullptr) continue;
      weights.push_back(parameters.number("weight", static_cast<int>(i)));
      densities.push_back(density_of(parameters, static_cast<int>(i)));
      deltas.push_back(delta_of(inputs, i));
    }
    const PeftRule rule = peft_rule(method_.name, parameters.choice("majority_sign") == "frequency");
    const std::vector<float> merged =
        combine_by_peft(rule, std::move(deltas), weights, densities, stream_key(seed_, inputs.module + ".weight"));
    return cut_dense(inputs, merged, inputs.largest_rank());
  }

  Status merge_by_method() {
    std::vector<TensorJob> jobs;
    for (const ModuleInputs& inputs : modules_) {
      jobs.push_back({.name = inputs.module + ".weight",
                      .shape = {inputs.d_out, inputs.d_in},
                      .num_models = static_cast<int>(adapters_.size()),
                      .parameters = inputs.parameters,
                      .seed = seed_});
    }
    const auto deltas_of = [&](std::size_t at) {
      std::vector<std::vector<float>> deltas;
      for (std::size_t i = 0; i < adapters_.size(); ++i) deltas.push_back(delta_of(modules_[at], i));
      return deltas;
    };
    return merge_deltas(method_, std::move(jobs), deltas_of, [&](std::size_t at, std::vector<float> merged) {
      return cut_dense(modules_[at], merged, modules_[at].sum_of_ranks());
    });
  }

  // ---- parts of them ----

  static double density_of(const MethodParameters& parameters, int adapter) {
    return parameters.has("density", adapter) ? parameters.number("density", adapter) : 1.0;
  }

  // s_i B_i A_i, zeros where the adapter leaves the module alone.
  std::vector<float> delta_of(const ModuleInputs& inputs, std::size_t adapter) const {
    const LoraTensors* lora = inputs.of_adapter[adapter];
    if (lora == nullptr) return std::vector<float>(static_cast<std::size_t>(inputs.d_out * inputs.d_in), 0.0F);
    const Factors factors{inputs.d_out, inputs.d_in, lora->rank, lora->b, lora->a};
    return dense_product(factors, lora->scale);
  }

  Result<std::int64_t> rank_of(const ModuleInputs& inputs, std::int64_t otherwise) const {
    const std::int64_t most = std::min(inputs.d_out, inputs.d_in);
    if (!inputs.parameters->has("rank")) return otherwise;
    const double rank = inputs.parameters->number("rank");
    if (!(rank >= 1) || rank != std::floor(rank) || rank > 65536)
      return fault(concat("rank ", rank, "; a whole number from 1 was expected"));
    return std::min(static_cast<std::int64_t>(rank), std::max(most, otherwise));
  }

  Status cut_dense(const ModuleInputs& inputs, const std::vector<float>& merged, std::int64_t usual_rank) {
    SKEIN_ASSIGN(std::int64_t rank, rank_of(inputs, usual_rank));
    rank = std::min({rank, inputs.d_out, inputs.d_in});
    Truncated cut =
        truncate_dense(merged, inputs.d_out, inputs.d_in, rank, stream_key(seed_, inputs.module + ".range"));
    add(inputs, std::move(cut.factors), cut.relative_error,
        squares(merged) * (1 - cut.relative_error * cut.relative_error));
    return {};
  }

  static double squares(const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value) * value;
    return sum;
  }

  // kept_squares: of the result, to weigh the error with; 0 where nothing was cut.
  void add(const ModuleInputs& inputs, Factors factors, double relative_error, double kept_squares) {
    reports_.push_back({.module = inputs.module, .rank = factors.rank, .relative_error = relative_error});
    const double kept_share = 1 - relative_error * relative_error;
    const double whole = kept_share > 0 ? kept_squares / kept_share : 0;
    whole_squares_ += whole;
    lost_squares_ += whole * relative_error * relative_error;
    LoraTensors lora;
    lora.slot_idx = static_cast<int>(out_.modules.size());
    lora.rank = factors.rank;
    lora.scale = 1;
    lora.a = std::move(factors.a);
    lora.b = std::move(factors.b);
    out_.modules.push_back(std::move(lora));
  }

  Env& env_;
  const Recipe& recipe_;
  std::uint64_t seed_;
  const std::vector<std::string>& folders_;
  MethodInfo method_;
  std::vector<AdapterFile> adapters_;
  std::vector<ModuleInputs> modules_;  // by name, as slots_ and the output
  std::vector<MethodParameters> parameters_;
  std::vector<SlotName> slots_;
  LoraAdapter out_;
  std::vector<MergedModule> reports_;
  double whole_squares_ = 0, lost_squares_ = 0;
};

}  // namespace

Result<MergedAdapter> merge_lora(Env& env, const Recipe& recipe, std::uint64_t seed,
                                 const std::vector<std::string>& adapter_folders, const std::string& folder,
                                 std::vector<std::string>& warnings) {
  AdapterMerger merger(env, recipe, seed, adapter_folders);
  SKEIN_ASSIGN(const LoraAdapter merged, merger.run(warnings));
  SKEIN_TRY(write_lora_adapter(env, folder, merged, merger.slots()));
  return merger.report();
}

}  // namespace skein::merge
