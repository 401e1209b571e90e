#include "skein/nn/backbone.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/gemma/gemma.h"
#include "skein/nn/llama/llama.h"
#include "skein/nn/t5/t5.h"
#include "skein/nn/weight_reader.h"

namespace skein {
namespace {

template <typename Model>
std::unique_ptr<Backbone> make(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute) {
  return std::make_unique<Model>(weights, config, compute);
}

struct FamilyEntry {
  Family family;
  std::unique_ptr<Backbone> (*make)(WeightReader&, const BackboneConfig&, const ComputeOptions&);
};

// A new backbone is a line here (docs/adding_a_backbone.md).
constexpr FamilyEntry kFamilies[] = {
    {Family::kLlama, &make<Llama>},  {Family::kQwen2, &make<Llama>}, {Family::kQwen3, &make<Llama>},
    {Family::kGemma3, &make<Gemma>}, {Family::kT5, &make<T5>},
};

}  // namespace

Backbone::Backbone(BackboneConfig config, ComputeOptions compute)
    : config_(std::move(config)), compute_(compute), slots_(slot_names(config_)) {}

EncodedSource Backbone::encode(const PackedBatch&, ForwardState&) const {
  check_failed("only encoder-decoders encode", __FILE__, __LINE__);
}

std::unique_ptr<Backbone> load_backbone(const BaseModel& base, const ComputeOptions& compute) {
  // Inference tensors could not take part in training later.
  const c10::InferenceMode normal_tensors(false);
  const at::NoGradGuard no_grad;
  for (const FamilyEntry& entry : kFamilies) {
    if (entry.family != base.config.family) continue;
    WeightReader weights(base, compute);
    auto backbone = entry.make(weights, base.config, compute);
    weights.finish();
    backbone->tensors_ = weights.tensors();
    return backbone;
  }
  check_failed("every family has a backbone", __FILE__, __LINE__);
}

}  // namespace skein
