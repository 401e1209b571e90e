#include "skein/infer/lorahub.h"

#include <cmath>

#include "skein/base/progress.h"
#include "skein/experts/combine.h"
#include "skein/infer/cma_es.h"
#include "skein/infer/score.h"

namespace skein {
namespace {

constexpr std::int64_t kBatchTokens = 2048;

double target_loss(const LoadedModel& model, const SlotFiller* filler, const std::vector<EncodedExample>& examples) {
  ForwardState state{filler, nullptr};
  double sum = 0;
  std::int64_t count = 0;
  for (const auto& scores : score_choices(*model.backbone, examples, state, kBatchTokens)) {
    sum -= scores.front().log_likelihood;
    count += scores.front().num_tokens;
  }
  return sum / static_cast<double>(count);
}

// An adapter alone, in the slots.
RoutedSlots slots_of(const LoadedModel& model, const LoraAdapter& adapter) {
  const ComputeOptions& compute = model.backbone->compute();
  auto bank = std::make_shared<const ExpertBank>(std::vector<LoraAdapter>{adapter}, std::vector<std::string>{"sum"},
                                                 model.backbone->slots(), compute);
  RouterOptions single;
  single.kind = "single";
  single.expert = "sum";
  auto router = make_router(single, *bank, {}, compute);
  return RoutedSlots(std::move(bank), std::move(router));
}

}  // namespace

LoraHub fit_lorahub(const LoadedModel& model, const std::vector<LoraAdapter>& adapters,
                    const std::vector<EncodedExample>& given, const LoraHubOptions& options) {
  if (given.empty()) throw Failure({"LoraHub needs a few examples; there are none", ErrorKind::kUsage});
  std::vector<EncodedExample> examples = given;
  for (EncodedExample& example : examples) example.choices.clear();  // the targets alone
  std::vector<const LoraAdapter*> pointers;
  for (const LoraAdapter& adapter : adapters) pointers.push_back(&adapter);

  const std::int64_t per_generation = 4 + static_cast<std::int64_t>(3 * std::log(static_cast<double>(adapters.size())));
  Progress progress("lorahub", options.generations * per_generation + 1, "evaluations");
  std::int64_t done = 0;
  const auto cost = [&](const std::vector<double>& weights) {
    double size = 0;
    for (const double weight : weights) size += std::fabs(weight) / static_cast<double>(weights.size());
    const RoutedSlots slots = slots_of(model, weighted_factors(pointers, weights));
    const double loss = target_loss(model, &slots, examples);
    progress.update(++done);
    return loss + options.penalty * size;
  };
  const CmaEsResult found =
      minimise(cost, std::vector<double>(adapters.size(), 0.0),
               {.generations = options.generations, .bound = options.bound, .seed = options.seed});
  LoraHub result;
  result.weights = found.best;
  result.adapter = weighted_factors(pointers, found.best);
  result.base_loss = target_loss(model, nullptr, examples);
  const RoutedSlots slots = slots_of(model, result.adapter);
  result.loss = target_loss(model, &slots, examples);
  result.evaluations = found.evaluations;
  return result;
}

}  // namespace skein
