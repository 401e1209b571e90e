// adapter_config.json as PEFT writes it: LoRA and (IA)3. Field meanings: docs/formats/expert.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"
#include "skein/spec/tensor_names.h"

namespace skein {

enum class AdapterKind { kLora, kIa3 };

// The one entry of target_modules that means every linear but the head.
inline constexpr std::string_view kAllLinear = "all-linear";

struct AdapterConfig {
  AdapterKind kind = AdapterKind::kLora;
  std::string base_model_name_or_path;
  std::string task_type;  // "CAUSAL_LM", "SEQ_2_SEQ_LM", or empty
  // LoRA.
  std::int64_t rank = 8;
  double alpha = 8;
  bool use_rslora = false;                                         // scale alpha/sqrt(r) instead of alpha/r
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;  // in file order: the first match counts
  std::vector<std::pair<std::string, double>> alpha_pattern;
  // Which modules: a list of suffixes, or one regular expression (target_is_regex), or "all-linear".
  std::vector<std::string> target_modules;
  bool target_is_regex = false;
  std::vector<std::string> exclude_modules;
  bool exclude_is_regex = false;
  std::vector<std::int64_t> layers_to_transform;  // empty: all; only with a list of suffixes
  std::vector<std::string> layers_pattern;  // regular expressions of what stands before the layer's number; empty: any
  // (IA)3: modules whose input is scaled, the others' output is. Same matching as the targets.
  std::vector<std::string> feedforward_modules;
  bool feedforward_is_regex = false;
};

// Refuses, by name, what would change outputs if ignored (DoRA, aLoRA, layer_replication, pissa/olora/corda/loftq
// initialisations, target_parameters, modules_to_save, bias, ...). path: for messages.
Result<AdapterConfig> adapter_config_from_json(const Json& config, const std::string& path);
// What PEFT's PeftModel.from_pretrained reads.
Json adapter_config_to_json(const AdapterConfig& config);

// One adapted module of an adapter, matched to the base's slots.
struct AdaptedSlot {
  int slot_idx = 0;
  std::int64_t rank = 0;
  double scale = 1;  // alpha/r or alpha/sqrt(r), patterns applied
};
// Which slots a LoRA config's targets mean, by slot_idx; none at all is an error. Regular expressions run in PCRE2 with
// match limits (they come from strangers).
Result<std::vector<AdaptedSlot>> match_slots(const AdapterConfig& config, const std::vector<SlotName>& slots);

}  // namespace skein
