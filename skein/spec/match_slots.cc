// PEFT's rules of which module an adapter's configuration means (peft/tuners/tuners_utils.py,
// check_target_module_exists, and peft/utils/other.py, get_pattern_key), on the table of slots instead of a live model.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/spec/lora_config.h"
#include "skein/spec/module_pattern.h"

namespace skein {
namespace {

constexpr std::size_t kMaxPatterns = 4096;

// Steps per match so that all patterns on all slots together stay within seconds even if each is hostile. An honest
// pattern on a module's name takes some hundred.
std::uint32_t steps_per_match(std::size_t num_patterns, std::size_t num_slots) {
  const double budget = 2e8 / static_cast<double>(std::max<std::size_t>(1, num_patterns * num_slots));
  return static_cast<std::uint32_t>(std::clamp(budget, 2000.0, 100000.0));
}

bool has_suffix(const std::string& module, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return module == name ||
           (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
  });
}

// A list of suffixes or one regular expression over whole names; nothing matches an empty one.
class ModuleSet {
 public:
  static Result<ModuleSet> make(const std::vector<std::string>& names, bool is_regex, std::uint32_t max_steps,
                                const char* field) {
    ModuleSet set;
    set.names_ = names;
    if (is_regex && !names.empty()) {
      SKEIN_ASSIGN(set.regex_, ModulePattern::compile(names[0], ModulePattern::Anchor::kBoth, max_steps, field));
    }
    return set;
  }
  Result<bool> contains(const std::string& module) const {
    if (regex_) return regex_->matches(module);
    return has_suffix(module, names_);
  }

 private:
  std::vector<std::string> names_;
  std::optional<ModulePattern> regex_;
};

// rank_pattern and alpha_pattern: the first key in file order that matches the end of the name.
template <typename T>
class PatternTable {
 public:
  static Result<PatternTable> make(const std::vector<std::pair<std::string, T>>& entries, std::uint32_t max_steps,
                                   const char* field) {
    PatternTable table;
    for (const auto& [key, value] : entries) {
      const std::string pattern = concat("(.*\\.)?(", key, ")$");
      SKEIN_ASSIGN(ModulePattern compiled,
                   ModulePattern::compile(pattern, ModulePattern::Anchor::kStart, max_steps, field));
      table.entries_.emplace_back(std::move(compiled), value);
    }
    return table;
  }
  Result<T> value_of(const std::string& module, T otherwise) const {
    for (const auto& [pattern, value] : entries_) {
      SKEIN_ASSIGN(const bool found, pattern.matches(module));
      if (found) return value;
    }
    return otherwise;
  }

 private:
  std::vector<std::pair<ModulePattern, T>> entries_;
};

// layers_to_transform: the number after one of the patterns, or the first number that stands between dots.
class LayerFilter {
 public:
  static Result<LayerFilter> make(const AdapterConfig& config, std::uint32_t max_steps) {
    LayerFilter filter;
    filter.layers_ = config.layers_to_transform;
    std::vector<std::string> patterns;
    for (const std::string& name : config.layers_pattern)
      patterns.push_back(concat("(?:^|.*?\\.)", name, "\\.(?P<idx>\\d+)\\."));
    if (patterns.empty()) patterns.push_back(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.");
    for (const std::string& pattern : patterns) {
      SKEIN_ASSIGN(ModulePattern compiled,
                   ModulePattern::compile(pattern, ModulePattern::Anchor::kStart, max_steps, "layers_pattern"));
      filter.patterns_.push_back(std::move(compiled));
    }
    return filter;
  }
  Result<bool> contains(const std::string& module) const {
    if (layers_.empty()) return true;
    for (const ModulePattern& pattern : patterns_) {
      SKEIN_ASSIGN(const bool found, pattern.matches(module));
      if (!found) continue;
      SKEIN_ASSIGN(const std::optional<std::string> digits, pattern.index_in(module));
      std::int64_t layer = -1;
      if (digits) std::from_chars(digits->data(), digits->data() + digits->size(), layer);
      return std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
    }
    return false;
  }

 private:
  std::vector<std::int64_t> layers_;
  std::vector<ModulePattern> patterns_;
};

std::string names_for_message(const AdapterConfig& config) {
  std::string text;
  for (const std::string& name : config.target_modules) {
    if (!text.empty()) text += ", ";
    text += printable(name);
    if (text.size() > 200) return text + ", ...";
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

Result<std::vector<AdaptedSlot>> match_slots(const AdapterConfig& config, const std::vector<SlotName>& slots) {
  const std::size_t num_patterns =
      2 + config.rank_pattern.size() + config.alpha_pattern.size() + config.layers_pattern.size();
  if (num_patterns > kMaxPatterns) {
    return Error{concat("adapter_config.json: ", num_patterns, " rank, alpha and layer patterns; at most ",
                        kMaxPatterns, " are accepted")};
  }
  const std::uint32_t max_steps = steps_per_match(num_patterns, slots.size());
  SKEIN_ASSIGN(const ModuleSet targets,
               ModuleSet::make(config.target_modules, config.target_is_regex, max_steps, "target_modules"));
  SKEIN_ASSIGN(const ModuleSet excluded,
               ModuleSet::make(config.exclude_modules, config.exclude_is_regex, max_steps, "exclude_modules"));
  SKEIN_ASSIGN(const auto ranks, PatternTable<std::int64_t>::make(config.rank_pattern, max_steps, "rank_pattern"));
  SKEIN_ASSIGN(const auto alphas, PatternTable<double>::make(config.alpha_pattern, max_steps, "alpha_pattern"));
  SKEIN_ASSIGN(const LayerFilter layers, LayerFilter::make(config, max_steps));
  const bool all_linear = config.target_modules.size() == 1 && config.target_modules[0] == kAllLinear;

  std::vector<AdaptedSlot> matched;
  for (std::size_t slot_idx = 0; slot_idx < slots.size(); ++slot_idx) {
    const std::string& module = slots[slot_idx].module;
    SKEIN_ASSIGN(const bool out, excluded.contains(module));
    if (out) continue;
    SKEIN_ASSIGN(const bool in, targets.contains(module));
    if (!in && !all_linear) continue;
    if (!config.target_is_regex && !all_linear) {
      SKEIN_ASSIGN(const bool in_layer, layers.contains(module));
      if (!in_layer) continue;
    }
    AdaptedSlot slot;
    slot.slot_idx = static_cast<int>(slot_idx);
    SKEIN_ASSIGN(slot.rank, ranks.value_of(module, config.rank));
    SKEIN_ASSIGN(const double alpha, alphas.value_of(module, config.alpha));
    const auto rank = static_cast<double>(slot.rank);
    slot.scale = alpha / (config.use_rslora ? std::sqrt(rank) : rank);
    matched.push_back(slot);
  }
  if (matched.empty()) {
    return Error{concat(
        "adapter_config.json: target_modules ", names_for_message(config), " name no linear of the base",
        slots.empty() ? "" : concat(" (it has ", slots[0].module, ", ...)"), "; an adapter of another architecture?")};
  }
  return matched;
}

}  // namespace skein
