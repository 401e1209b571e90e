// A mixture on disk: experts and routers that were trained together, MoV or MoLoRA (arXiv 2309.05444). Format:
// docs/formats/mixture.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/spec/backbone_config.h"
#include "skein/spec/tensor_names.h"

namespace skein {

// MoV: experts are (IA)3 vectors on keys, values and the feed-forward's inner activation. MoLoRA: pairs A, B on
// linears.
enum class MixtureKind { kMov, kMolora };
// What a router reads: the input of the linear, as the paper's formula does; what is about to be scaled, as the
// released MoV code does (each head's projected key or value, the activated feed-forward vector); or the mean embedding
// of the sequence's input, the same in every layer.
enum class RouterInput { kHidden, kProjected, kSentence };
// y = sum p_e X_e(x), or X_mix(x) with X_mix = sum p_e X_e. For MoV the same.
enum class Mixes { kOutputs, kParameters };

struct MixtureConfig {
  MixtureKind kind = MixtureKind::kMov;
  int num_experts = 10;       // E
  std::int64_t rank = 4;      // R; MoLoRA
  double alpha = 16;          // the update is scaled by alpha / R; MoLoRA
  int top_k = 0;              // experts per token; 0: all of them (soft)
  bool renormalises = false;  // top-k probabilities are divided by their sum (released code: they are not)
  RouterInput router_input = RouterInput::kHidden;
  Mixes mixes = Mixes::kOutputs;
  std::vector<std::string> target_kinds;  // MoLoRA: "q_proj", ...; empty: every linear
  std::vector<std::string> experts;       // names, in order; empty: they have none
};

// The experts and the router of one linear, row-major f32. D_in, D_out: the slot's.
struct MixtureModule {
  int slot_idx = 0;
  std::vector<float> scaling;  // MoV: (E, D_out) on k and v, (E, D_in) on the feed-forward's last linear
  std::vector<float> a, b;     // MoLoRA: (E, R, D_in), (E, D_out, R)
  std::vector<float> router;   // (E, router_width)
};

struct MixtureFile {
  MixtureConfig config;
  std::string base_fingerprint;
  std::string base_hint;
  std::vector<MixtureModule> modules;  // by slot_idx, ascending
};

// mixture.json and mixture.safetensors, every tensor checked against the base.
Result<MixtureFile> read_mixture(Env& env, const std::string& folder, const BackboneConfig& base);
Status write_mixture(Env& env, const std::string& folder, const MixtureFile& mixture, const BackboneConfig& base);

// Which linears carry experts, by slot_idx. A target kind that the base lacks is an error (kUsage).
Result<std::vector<int>> mixture_slots(const MixtureConfig& config, const std::vector<SlotName>& slots);
// How many numbers the router of a slot reads.
std::int64_t router_width(const MixtureConfig& config, const BackboneConfig& base, const SlotName& slot);
// (IA)3 scales the input of the feed-forward's last linear and the output of the others.
bool scales_input(const SlotName& slot);
// Numbers to train: experts and routers, as a share of the base's too.
struct ParameterCount {
  std::int64_t experts = 0, routers = 0;
  std::int64_t base = 0;
  std::int64_t trained() const { return experts + routers; }
  double share() const { return static_cast<double>(trained()) / static_cast<double>(base); }
};
ParameterCount count_parameters(const MixtureConfig& config, const BackboneConfig& base);
std::int64_t base_parameters(const BackboneConfig& base);

// Settings out of range as one sentence (kUsage).
Status check_mixture_config(const MixtureConfig& config);
std::string_view mixture_kind_name(MixtureKind kind);   // "mov"
std::string_view router_input_name(RouterInput input);  // "hidden"
std::string_view mixes_name(Mixes mixes);               // "outputs"
Result<RouterInput> parse_router_input(std::string_view name);
Result<Mixes> parse_mixes(std::string_view name);
Json mixture_config_to_json(const MixtureConfig& config);

}  // namespace skein
