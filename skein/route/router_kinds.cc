#include "skein/base/concat.h"
#include "skein/route/router.h"

namespace skein {

const std::vector<RouterKind>& router_kinds() {
  using enum RouterKind::Score;
  static const std::vector<RouterKind> kinds = {
      {"phatgoose", "trained gates", kNormalised, "phatgoose", false, false},
      {"average-activation", "mean inputs in the place of gates", kNormalised, "average-activation", false, false},
      {"arrow", "the direction that each LoRA amplifies most", kMagnitude, "arrow", true, false},
      {"spectr", "the norm of each LoRA's contribution", kMagnitude, "spectr", true, false},
      {"smear", "by the prompt's mean input all experts are merged softly", kNormalised, "phatgoose", false, false},
      {"task-description", "trained gates and the likeness of task descriptions", kNormalised, "phatgoose", false,
       true},
      {"retrieval", "the expert that owns the most similar example takes the whole text", kNone, nullptr, false, true},
      {"uniform", "experts at random", kNone, nullptr, false, false},
      {"single", "one expert (--expert)", kNone, nullptr, false, false},
      {"merged", "the mean of all experts' products", kNone, nullptr, false, false},
      {"merged-factors", "the product of the means of A and B", kNone, nullptr, false, false},
  };
  return kinds;
}

const RouterKind& router_kind(const std::string& name) {
  std::string known;
  for (const RouterKind& kind : router_kinds()) {
    if (name == kind.name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  throw Failure({concat("no router ", printable(name), "; there are ", known), ErrorKind::kUsage});
}

RouterOptions default_router(const std::string& kind) {
  RouterOptions options;
  options.kind = kind;
  // PEFT and mttl take the softmax over the chosen scores.
  options.softmax_over_chosen = router_kind(kind).score == RouterKind::Score::kMagnitude;
  if (kind == "smear") options.use = {RouterUse::Scope::kSequence, {}, RouterUse::Mixing::kFactors};
  if (kind == "merged-factors") options.use.mixing = RouterUse::Mixing::kFactors;
  return options;
}

}  // namespace skein
