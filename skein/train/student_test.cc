#include "skein/train/student.h"

#include <random>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/experts/combine.h"
#include "skein/experts/random_experts.h"
#include "skein/infer/distill.h"
#include "skein/route/routed_slot.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

// Random experts behind random gates, on a tiny base.
struct Pool {
  std::unique_ptr<Backbone> backbone;
  std::vector<LoraAdapter> adapters;
  std::shared_ptr<RoutedSlots> routed;

  explicit Pool(const std::string& model) : backbone(tiny::backbone(model)) {
    const auto& slots = backbone->slots();
    std::mt19937_64 generator(4);
    std::vector<GateFile> gates;
    for (int e = 0; e < 3; ++e) {
      adapters.push_back(random_adapter(slots, std::vector<std::int64_t>(slots.size(), 2), generator));
      gates.push_back(random_gate(slots, generator));
    }
    auto bank =
        std::make_shared<ExpertBank>(adapters, std::vector<std::string>{"a", "b", "c"}, slots, backbone->compute());
    auto router = make_router({.top_k = 2}, *bank, gates, backbone->compute());
    routed = std::make_shared<RoutedSlots>(std::move(bank), std::move(router));
  }
  LoraAdapter mean() const {
    std::vector<const LoraAdapter*> pointers;
    for (const LoraAdapter& adapter : adapters) pointers.push_back(&adapter);
    LoraAdapter result = concatenated(
        pointers, std::vector<std::vector<double>>(backbone->slots().size(), std::vector<double>(3, 1.0 / 3)));
    return result;
  }
  OutputDistance distance(const LoraAdapter& adapter, const std::vector<EncodedExample>& examples) const {
    auto bank = std::make_shared<const ExpertBank>(std::vector<LoraAdapter>{adapter}, std::vector<std::string>{"one"},
                                                   backbone->slots(), backbone->compute());
    auto router = make_router({.kind = "single", .expert = "one"}, *bank, {}, backbone->compute());
    const RoutedSlots alone(std::move(bank), std::move(router));
    return output_distance(*backbone, routed.get(), &alone, examples);
  }
};

TEST(Student, TheGradientIsThatOfTheDivergence) {
  const auto backbone = tiny::backbone();
  const std::int64_t width = backbone->config().d_model;
  const at::Tensor teacher = at::randn({5, width}), student = at::randn({5, width});
  const DivergenceLoss loss = divergence_loss(*backbone, teacher, student, 2);
  const auto mean = [&](const at::Tensor& hidden) {
    const at::Tensor p = at::log_softmax(backbone->logits(teacher), 1),
                     q = at::log_softmax(backbone->logits(hidden), 1);
    return (p.exp() * (p - q)).sum().item<double>() / 5;
  };
  EXPECT_NEAR(loss.sum / 5, mean(student), 1e-5);
  // Along a direction: central differences of a function of f32 logits, whose error is about 1e-6 / step + step^2.
  const at::Tensor direction = at::randn({5, width});
  const double step = 1e-2;
  const double slope = (mean(student + step * direction) - mean(student - step * direction)) / (2 * step);
  EXPECT_NEAR((loss.hidden_gradient * direction).sum().item<double>(), slope, 1e-3 * (1 + std::abs(slope)));
}

TEST(Student, ComesNearerToThePoolThanTheMeanOfItsExperts) {
  for (const char* model : {"llama", "t5_v11"}) {
    const Pool pool(model);
    const std::vector<EncodedExample> examples = tiny::random_data(24, 3).examples;
    TrainOptions options;
    options.steps = 40;
    options.batch = 8;
    options.learning_rate = 3e-3;
    StudentReport report;
    const LoraAdapter start = pool.mean();
    const LoraAdapter taught = train_student(*pool.backbone, *pool.routed, start, examples, options, &report);
    EXPECT_EQ(report.divergences.size(), 40u);
    const double before = pool.distance(start, examples).divergence, after = pool.distance(taught, examples).divergence;
    EXPECT_LT(after, 0.5 * before) << model << ": " << before << " -> " << after;
    EXPECT_EQ(taught.modules.size(), start.modules.size());
    EXPECT_EQ(taught.modules[0].rank, start.modules[0].rank);
  }
}

}  // namespace
}  // namespace skein
