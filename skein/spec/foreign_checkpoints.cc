#include "skein/spec/foreign_checkpoints.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <string_view>

#include "skein/base/concat.h"
#include "skein/io/convert_elements.h"

namespace skein {
namespace {

enum class Part { kA, kB, kGate };

// One way a key may end. `transposed`: A is stored (D_in, R) and B (R, D_out). `numbered`: "__i" follows.
struct KeyEnding {
  std::string_view ending;
  Part part;
  bool transposed;
  bool numbered;
  double default_alpha;
};

constexpr double kPhatgooseAlpha = 1;  // the released code divides by R and by nothing else
constexpr double kMttlAlpha = 16;

constexpr std::array<KeyEnding, 8> kEndings{{
    {".expert_lora_a", Part::kA, false, false, kPhatgooseAlpha},
    {".expert_lora_b", Part::kB, false, false, kPhatgooseAlpha},
    {"._addons.expert_lora.layer1", Part::kA, true, true, kPhatgooseAlpha},
    {"._addons.expert_lora.layer2", Part::kB, true, true, kPhatgooseAlpha},
    {"._addons.router.expert_embeddings", Part::kGate, false, true, kPhatgooseAlpha},
    {"._addons.expert_lora.expert_input_gate", Part::kGate, false, false, kPhatgooseAlpha},
    {".lora_a", Part::kA, true, false, kMttlAlpha},
    {".lora_b", Part::kB, true, false, kMttlAlpha},
}};

constexpr std::int64_t kMaxExperts = 100'000;

struct ParsedKey {
  std::string_view module;
  const KeyEnding* ending = nullptr;
  std::int64_t expert_idx = 0;
};

std::optional<ParsedKey> parse_key(std::string_view key) {
  std::int64_t number = -1;
  std::string_view stem = key;
  if (const auto mark = key.rfind("__"); mark != std::string_view::npos) {
    const std::string_view digits = key.substr(mark + 2);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc() && end == digits.data() + digits.size() && !digits.empty() && value >= 0) {
      number = value;
      stem = key.substr(0, mark);
    }
  }
  for (const KeyEnding& ending : kEndings) {
    const std::string_view text = ending.numbered ? stem : key;
    if (ending.numbered == (number >= 0) && text.ends_with(ending.ending)) {
      return ParsedKey{text.substr(0, text.size() - ending.ending.size()), &ending, std::max<std::int64_t>(number, 0)};
    }
  }
  return std::nullopt;
}

// The slot a module path means; a prefix such as "model." or "state_dict." may stand before it.
int slot_of(std::string_view module, const std::vector<SlotName>& slots) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::string& name = slots[i].module;
    if (module == name || (module.ends_with(name) && module[module.size() - name.size() - 1] == '.'))
      return static_cast<int>(i);
  }
  return -1;
}

std::vector<float> transposed(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  std::vector<float> out(values.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) out[j * rows + i] = values[i * columns + j];
  }
  return out;
}

// What the file holds for one expert, by slot.
struct Draft {
  std::map<int, LoraTensors> modules;
  std::map<int, GateTensors> gates;
  std::set<int> has_a, has_b;
};

class ArchiveReader {
 public:
  ArchiveReader(const TorchArchive& archive, const std::vector<SlotName>& slots) : archive_(archive), slots_(slots) {}

  Status read() {
    for (const NamedTensor& named : archive_.tensors()) {
      if (named.name.ends_with("embed_tokens.weight") || named.name.ends_with("shared.weight")) continue;
      const auto key = parse_key(named.name);
      if (!key) {
        return fault(named.name,
                     "is no tensor of a phatgoose or mttl expert (expected endings such as .expert_lora_a, "
                     "._addons.expert_lora.layer1__0 or .lora_a)");
      }
      if (key->expert_idx >= kMaxExperts)
        return fault(named.name, "has an expert number over 100000; the file is damaged");
      SKEIN_TRY(take(named, *key));
    }
    return {};
  }

  std::map<std::int64_t, Draft>& drafts() { return drafts_; }
  double default_alpha() const { return default_alpha_; }

  Error fault(const std::string& tensor, const std::string& what) const {
    return Error{concat(archive_.path(), ": ", printable(tensor), " ", what)};
  }

 private:
  Status take(const NamedTensor& named, const ParsedKey& key) {
    const int slot_idx = slot_of(key.module, slots_);
    if (slot_idx < 0) return fault(named.name, "belongs to no linear of this base; was it trained on another one?");
    const SlotName& slot = slots_[slot_idx];
    if (!is_floating(named.tensor.dtype)) return fault(named.name, "holds integers; weights are floating-point");
    std::vector<float> values(static_cast<std::size_t>(checked_numel(named.tensor.shape).value_or(0)));
    SKEIN_TRY(convert_elements(named.tensor, DType::kF32, std::as_writable_bytes(std::span(values))));
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
      return fault(named.name, "holds NaN or infinite values; its training diverged or the file is damaged");
    }
    Draft& draft = drafts_[key.expert_idx];
    default_alpha_ = key.ending->default_alpha;
    if (key.ending->part == Part::kGate) return take_gate(named, slot, slot_idx, std::move(values), draft);
    return take_factor(named, key, slot_idx, std::move(values), draft);
  }

  Status take_gate(const NamedTensor& named, const SlotName& slot, int slot_idx, std::vector<float> values,
                   Draft& draft) {
    if (static_cast<std::int64_t>(values.size()) != slot.d_in) {
      return fault(named.name,
                   concat("has shape ", to_string(named.tensor.shape), "; this base expects (", slot.d_in, ")"));
    }
    draft.gates[slot_idx] = {slot_idx, 1, std::move(values)};
    return {};
  }

  Status take_factor(const NamedTensor& named, const ParsedKey& key, int slot_idx, std::vector<float> values,
                     Draft& draft) {
    const SlotName& slot = slots_[slot_idx];
    const bool is_a = key.ending->part == Part::kA;
    const Shape& shape = named.tensor.shape;
    const std::int64_t width = is_a ? slot.d_in : slot.d_out;
    // Of the two dimensions one is the module's width; which, the layout says.
    const bool width_first = is_a ? key.ending->transposed : !key.ending->transposed;
    if (shape.size() != 2 || shape[width_first ? 0 : 1] != width || shape[width_first ? 1 : 0] < 1) {
      return fault(named.name, concat("has shape ", to_string(shape), "; this base expects ",
                                      width_first ? concat("(", width, ", R)") : concat("(R, ", width, ")")));
    }
    const std::int64_t rank = shape[width_first ? 1 : 0];
    LoraTensors& module = draft.modules[slot_idx];
    if (module.rank != 0 && module.rank != rank) {
      return fault(named.name, concat("has rank ", rank, " and its other factor ", module.rank));
    }
    if (!(is_a ? draft.has_a : draft.has_b).insert(slot_idx).second)
      return fault(named.name, "stands twice in the file");
    module.slot_idx = slot_idx;
    module.rank = rank;
    if (key.ending->transposed) values = transposed(values, shape[0], shape[1]);
    (is_a ? module.a : module.b) = std::move(values);
    return {};
  }

  const TorchArchive& archive_;
  const std::vector<SlotName>& slots_;
  std::map<std::int64_t, Draft> drafts_;
  double default_alpha_ = kPhatgooseAlpha;
};

AdapterConfig config_of(const Draft& draft, const std::vector<SlotName>& slots, double alpha) {
  AdapterConfig config;
  config.alpha = alpha;
  config.rank = draft.modules.begin()->second.rank;
  config.task_type = slots.front().module.starts_with("encoder.") ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
  for (const auto& [slot_idx, module] : draft.modules) {
    config.target_modules.push_back(slots[slot_idx].module);
    if (module.rank != config.rank) config.rank_pattern.emplace_back(slots[slot_idx].module, module.rank);
  }
  return config;
}

}  // namespace

Result<std::vector<ForeignExpert>> experts_of_archive(const TorchArchive& archive, const std::vector<SlotName>& slots,
                                                      const ForeignOptions& options) {
  ArchiveReader reader(archive, slots);
  SKEIN_TRY(reader.read());
  auto& drafts = reader.drafts();
  if (drafts.empty())
    return Error{concat(archive.path(), ": holds no expert; expected LoRA tensors of phatgoose or mttl")};
  if (!options.names.empty() && options.names.size() != drafts.size()) {
    return Error{concat(archive.path(), ": holds ", drafts.size(), " expert(s), and ", options.names.size(),
                        " name(s) were given; give one name per expert, in the file's order"),
                 ErrorKind::kUsage};
  }
  const double alpha = options.alpha.value_or(reader.default_alpha());

  std::vector<ForeignExpert> experts;
  for (auto& [expert_idx, draft] : drafts) {
    if (draft.modules.empty()) {
      return Error{concat(archive.path(), ": expert ", expert_idx,
                          " has a gate and no LoRA; convert the checkpoint that holds both")};
    }
    for (const auto& [slot_idx, module] : draft.modules) {
      if (!draft.has_a.contains(slot_idx) || !draft.has_b.contains(slot_idx)) {
        return Error{concat(archive.path(), ": expert ", expert_idx, " has one factor only of ", slots[slot_idx].module,
                            "; the file is incomplete (or shares factors between modules, which is not supported)")};
      }
    }
    ForeignExpert expert;
    expert.name = !options.names.empty() ? options.names[experts.size()]
                  : drafts.size() == 1   ? "expert"
                                         : concat("expert_", expert_idx);
    expert.adapter.path = archive.path();
    expert.adapter.config = config_of(draft, slots, alpha);
    for (auto& [slot_idx, module] : draft.modules) {
      module.scale = alpha / static_cast<double>(module.rank);
      expert.adapter.modules.push_back(std::move(module));
    }
    if (!draft.gates.empty()) {
      expert.gate.emplace();
      expert.gate->kind = "phatgoose";
      for (auto& [slot_idx, gate] : draft.gates) expert.gate->modules.push_back(std::move(gate));
    }
    experts.push_back(std::move(expert));
  }
  return experts;
}

}  // namespace skein
