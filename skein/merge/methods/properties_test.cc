// Identities that hold whatever the numbers, and inputs that break other programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "skein/merge/methods/knots.h"
#include "skein/merge/methods/naive_reference.h"

namespace skein::merge {
namespace {

using testing::FloatNear;
using testing::Pointwise;

const Shape kShape = {130, 517};  // two blocks

TestTensor tensor(int num_models, DType type = DType::kF32, Shape shape = kShape) {
  return random_tensor(std::move(shape), num_models, type, type == DType::kF32 ? 2e-3F : 5e-4F);
}

ModelValues with_weights(std::vector<double> weights) { return {{"weight", std::move(weights)}}; }

TEST(Identities, TaskArithmeticAtOneOverNIsTheAverage) {
  const TestTensor inputs = tensor(4);
  TestTensor models_only = inputs;
  models_only.base.clear();
  const auto average = TestMerge{"linear", {}, with_weights({1, 1, 1, 1})}.run(models_only);
  const auto got = TestMerge{"task_arithmetic", {{"lambda", 0.25}}, with_weights({1, 1, 1, 1})}.run(inputs);
  // Numbers below 0.5, some eight roundings.
  EXPECT_THAT(got, Pointwise(FloatNear(0x1p-22F), average));
}

TEST(Identities, OneModelAtDensityOneComesBackUpToTheRoundingOfItsDelta) {
  for (const char* method : {"ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties", "della",
                             "della_linear", "task_arithmetic", "sce", "ram"}) {
    const TestTensor inputs = tensor(1);
    TestMerge merge{method, {}, {}};
    if (std::string(method) != "sce" && std::string(method) != "ram") merge.per_model = with_weights({1});
    if (std::string(method) == "ram") merge.global["epsilon"] = 0.0;
    std::vector<float> want;
    for (std::size_t i = 0; i < inputs.base.size(); ++i) {
      want.push_back(inputs.base[i] + (inputs.models[0][i] - inputs.base[i]));
    }
    EXPECT_THAT(merge.run(inputs), Pointwise(FloatNear(0x1p-26F), want)) << method;  // sce divides by its weight
  }
}

TEST(Identities, SlerpEndsAtItsInputs) {
  const TestTensor inputs = tensor(1);
  EXPECT_EQ((TestMerge{"slerp", {{"t", 0.0}}, {}}.run(inputs)), inputs.base);
  EXPECT_EQ((TestMerge{"slerp", {{"t", 1.0}}, {}}.run(inputs)), inputs.models[0]);
}

TEST(Identities, AModelOfWeightZeroHasNoInfluence) {
  TestTensor inputs = tensor(3);
  for (const char* method : {"linear", "task_arithmetic", "ties", "breadcrumbs_ties", "dare_linear"}) {
    SCOPED_TRACE(method);
    TestTensor all = inputs, two = inputs;
    two.models.pop_back();
    if (std::string(method) == "linear") all.base.clear(), two.base.clear();
    EXPECT_EQ((TestMerge{method, {}, with_weights({1, 0.5, 0})}.run(all)),
              (TestMerge{method, {}, with_weights({1, 0.5})}.run(two)));
  }
}

TEST(Identities, TheOrderOfModelsDoesNotMatterBeyondRounding) {
  const TestTensor inputs = tensor(3);
  TestTensor turned = inputs;
  std::rotate(turned.models.begin(), turned.models.begin() + 1, turned.models.end());
  for (const char* method : {"ties", "multislerp", "model_stock", "sce", "ram", "ramplus_tl", "tsv_m", "iso_c",
                             "iso_cts", "wudi", "knots", "emr", "consensus"}) {
    TestMerge merge{method, {}, {}}, other{method, {}, {}};
    for (const ParameterSpec& spec : find_method(method)->parameters) {
      if (spec.name != "weight") continue;
      merge.per_model["weight"] = {1, 0.5, 0.75};
      other.per_model["weight"] = {0.5, 0.75, 1};
    }
    // Small enough for a decomposition; f32 singular vectors are good to about 1e-5 of the deltas' norm.
    const TestTensor small = tensor(3, DType::kF32, {24, 17});
    TestTensor small_turned = small;
    std::rotate(small_turned.models.begin(), small_turned.models.begin() + 1, small_turned.models.end());
    EXPECT_THAT(merge.run(small), Pointwise(FloatNear(2e-6F), other.run(small_turned))) << method;
  }
}

TEST(Identities, TwiceTheInputsGiveTwiceTheOutput) {
  const TestTensor inputs = tensor(3);
  TestTensor twice = inputs;
  for (float& x : twice.base) x *= 2;
  for (auto& model : twice.models) {
    for (float& x : model) x *= 2;
  }
  for (const char* method : {"task_arithmetic", "ties", "dare_ties", "breadcrumbs", "model_stock"}) {
    TestMerge merge{method, {}, {}};
    if (std::string(method) != "model_stock") merge.per_model = with_weights({1, 0.5, 0.75});
    if (std::string(method) == "dare_ties") merge.per_model["density"] = {0.5, 0.5, 0.5};
    std::vector<float> want = merge.run(inputs);
    for (float& x : want) x *= 2;
    EXPECT_EQ(merge.run(twice), want) << method;
  }
}

// ---- TIES over the whole model --------------------------------------------------------------------------------------

TEST(GlobalTrim, IsTheTrimOfTheTensorsLaidEndToEnd) {
  for (const DType type : {DType::kBF16, DType::kF32}) {
    const TestTensor whole = random_tensor({4 * 65536 + 100}, 3, type, 5e-4F);
    std::vector<TestTensor> parts;
    std::int64_t begin = 0;
    for (const std::int64_t size : {100, 70000, 65536, 4 * 65536 + 100 - 135636}) {
      TestTensor part{.shape = {size}, .dtype = type};
      const auto cut = [&](const std::vector<float>& all) {
        return std::vector<float>(all.begin() + begin, all.begin() + begin + size);
      };
      part.base = cut(whole.base);
      for (const auto& model : whole.models) part.models.push_back(cut(model));
      begin += size;
      parts.push_back(part);
    }
    for (const char* convention : {"mergekit", "paper"}) {
      TestMerge merge{"ties", {{"convention", std::string(convention)}}, with_weights({1, 1, 1})};
      merge.per_model["density"] = {0.2, 0.3, 0.1};
      merge.global["trim"] = std::string("tensor");
      const std::vector<float> want = merge.run(whole);
      merge.global["trim"] = std::string("global");
      std::vector<float> got;
      for (const auto& part : or_throw(merge.run_model(parts))) got.insert(got.end(), part.begin(), part.end());
      EXPECT_EQ(got, want) << convention << " " << dtype_name(type);
    }
  }
}

TEST(GlobalTrim, RefusesDensitiesThatDifferBetweenTensors) {
  const MethodInfo& ties = *find_method("ties");
  MethodParameters first(ties, 1), second(ties, 1);
  for (MethodParameters* p : {&first, &second}) {
    or_throw(p->set("weight", 0, 1.0));
    or_throw(p->set("trim", std::string("global")));
  }
  or_throw(second.set("density", 0, 0.5));
  const std::vector<TensorJob> jobs = {
      {.name = "a", .shape = {4}, .num_models = 1, .has_base = true, .parameters = &first},
      {.name = "b", .shape = {4}, .num_models = 1, .has_base = true, .parameters = &second, .index = 1}};
  const auto model = ties.make(ties, jobs, 1);
  ASSERT_FALSE(model.ok());
  EXPECT_THAT(model.error().message, testing::HasSubstr("one density per model"));
}

// ---- Inputs that break other programs -------------------------------------------------------------------------------

TEST(HardInputs, L1NormsBeyondTheRangeOfF16AreRestored) {
  TestTensor inputs{.shape = {300, 300},
                    .models = {std::vector<float>(90000)},
                    .base = std::vector<float>(90000),
                    .dtype = DType::kF16};
  for (std::size_t i = 0; i < 90000; ++i) inputs.models[0][i] = i % 2 == 0 ? 4.0F : -2.0F;  // L1 270000
  TestMerge merge{"ties", {{"rescale", true}}, {{"weight", {1}}, {"density", {0.5}}}};
  const auto got = merge.run(inputs);
  EXPECT_EQ(got[0], 6.0F);  // 270000 / 180000 of what is kept
  EXPECT_EQ(got[1], 0.0F);
}

TEST(HardInputs, TinyTensorsKeepOneElementAtAnyPositiveDensity) {
  TestTensor inputs{.shape = {3}, .models = {{1, 3, 2}}, .base = {0, 0, 0}};
  EXPECT_EQ((TestMerge{"ties", {}, {{"weight", {1}}, {"density", {0.01}}}}.run(inputs)), (std::vector<float>{0, 3, 0}));
}

TEST(HardInputs, RowsOfOneElementHaveARank) {
  TestTensor inputs{.shape = {2000, 1}, .models = {std::vector<float>(2000, 1)}, .base = std::vector<float>(2000)};
  TestMerge merge{"della_linear", {{"rescale", false}}, {{"weight", {1}}, {"density", {0.5}}, {"epsilon", {0.15}}}};
  const auto got = merge.run(inputs);
  const auto kept = std::count(got.begin(), got.end(), 1.0F);
  EXPECT_NEAR(static_cast<double>(kept), 1000, 5 * std::sqrt(2000 * 0.25));
}

TEST(HardInputs, DellaRefusesProbabilitiesOutsideOfZeroToOne) {
  TestTensor inputs{.shape = {2}, .models = {{1, 2}}, .base = {0, 0}};
  const auto got =
      TestMerge{"della", {}, {{"weight", {1}}, {"density", {0.66}}, {"epsilon", {1.35}}}}.run_model({inputs});
  ASSERT_FALSE(got.ok());
  EXPECT_THAT(got.error().message, testing::HasSubstr("density - epsilon must be above 0"));
}

TEST(HardInputs, WeightsThatSumToZero) {
  TestTensor inputs{.shape = {2}, .models = {{1, 2}, {3, 4}}};
  EXPECT_FALSE((TestMerge{"linear", {}, with_weights({1, -1})}.run_model({inputs})).ok());
  EXPECT_FALSE((TestMerge{"multislerp", {}, with_weights({1, -1})}.run_model({inputs})).ok());
  // task arithmetic divides by 1 instead, as mergekit does
  inputs.base = {1, 1};
  EXPECT_EQ((TestMerge{"task_arithmetic", {{"normalize", true}}, with_weights({1, -1})}.run(inputs)),
            (std::vector<float>{-1, -1}));
}

TEST(HardInputs, DirectionsThatCancelAreAnErrorForThreeModels) {
  TestTensor inputs{.shape = {2}, .models = {{1, 0}, {-1, 0}, {0, 0}}};
  const auto got = TestMerge{"multislerp", {}, with_weights({1, 1, 1})}.run_model({inputs});
  ASSERT_FALSE(got.ok());
  EXPECT_THAT(got.error().message, testing::HasSubstr("cancel"));
}

TEST(HardInputs, ZeroTensorsAndOppositeDirectionsStayFinite) {
  const TestTensor zeros{.shape = {2}, .models = {{0, 0}, {0, 0}}};
  EXPECT_EQ((TestMerge{"karcher", {}, {}}.run(zeros)), (std::vector<float>{0, 0}));
  const TestTensor opposite{.shape = {2}, .models = {{1, 0}, {-1, 0}}};
  for (const float x : TestMerge{"karcher", {}, {}}.run(opposite)) EXPECT_TRUE(std::isfinite(x));
  const TestTensor negative{.shape = {2}, .models = {{2, 1}, {0.5F, 1.2F}}, .base = {1, 1}};  // cosine below 0
  for (const float x : TestMerge{"model_stock", {}, {}}.run(negative)) EXPECT_TRUE(std::isfinite(x));
  const TestTensor same{.shape = {2, 2}, .models = {{1, 2, 3, 4}, {1, 2, 3, 4}}, .base = {1, 2, 3, 4}};
  for (const char* method : {"tsv_m", "iso_c", "iso_cts", "wudi", "knots", "emr", "consensus", "sce", "model_stock"}) {
    EXPECT_EQ((TestMerge{method, {}, {}}.run(same)), same.base) << method;
  }
}

TEST(HardInputs, EmptyTensorsAreNoWork) {
  for (const MethodInfo& method : all_methods()) {
    TestTensor empty{
        .shape = {0, 5},
        .models = std::vector<std::vector<float>>(static_cast<std::size_t>(std::max(method.min_models, 1)))};
    TestMerge merge{method.name, {}, {}};
    for (const ParameterSpec& spec : method.parameters) {
      if (!spec.required) continue;
      if (spec.scope == ParameterSpec::Scope::kGlobal) merge.global[spec.name] = 0.5;
      if (spec.scope == ParameterSpec::Scope::kPerModel) merge.per_model[spec.name] = {0.5, 0.5};
    }
    const auto got = merge.run_model({empty});
    ASSERT_TRUE(got.ok()) << method.name << ": " << got.error().message;
    EXPECT_TRUE((*got)[0].empty());
  }
}

TEST(HardInputs, ANotFiniteDeltaIsAnErrorWhereItIsDecomposed) {
  const TestTensor inputs{.shape = {1, 2}, .models = {{1, NAN}, {1, 1}}, .base = {0, 0}};
  for (const char* method : {"tsv_m", "iso_c", "iso_cts", "wudi", "knots"}) {
    EXPECT_FALSE((TestMerge{method, {}, {}}.run_model({inputs})).ok()) << method;
  }
}

// ---- Random masks ---------------------------------------------------------------------------------------------------

std::vector<float> dare_mask(std::uint64_t seed, double density, Shape shape, int model_idx) {
  const auto n = static_cast<std::size_t>(*checked_numel(shape));
  TestTensor inputs{.shape = shape,
                    .models = std::vector<std::vector<float>>(2, std::vector<float>(n)),
                    .base = std::vector<float>(n)};
  std::fill(inputs.models[static_cast<std::size_t>(model_idx)].begin(),
            inputs.models[static_cast<std::size_t>(model_idx)].end(), 1.0F);
  TestMerge merge{"dare_linear", {{"rescale", false}}, {{"weight", {1, 1}}, {"density", {density, density}}}, seed};
  return merge.run(inputs);
}

TEST(RandomMasks, KeepTheirShareIndependently) {
  const Shape shape = {400, 500};
  const double n = 200000;
  for (const double density : {0.1, 0.5, 0.9}) {
    const double sigma = std::sqrt(n * density * (1 - density));
    const auto a = dare_mask(1, density, shape, 0), b = dare_mask(1, density, shape, 1),
               c = dare_mask(2, density, shape, 0);
    double kept = 0, both_models = 0, both_seeds = 0, neighbours = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      kept += a[i];
      both_models += a[i] * b[i];
      both_seeds += a[i] * c[i];
      neighbours += a[i] * a[(i + 1) % a.size()];
    }
    EXPECT_NEAR(kept, n * density, 5 * sigma);
    const double both = density * density, sigma_both = std::sqrt(n * both * (1 - both));
    EXPECT_NEAR(both_models, n * both, 5 * sigma_both);
    EXPECT_NEAR(both_seeds, n * both, 5 * sigma_both);
    EXPECT_NEAR(neighbours, n * both, 8 * sigma_both);  // neighbouring products are correlated: a wider bound
  }
}

TEST(RandomMasks, KeepTheExpectationOverManySeeds) {
  TestTensor inputs{.shape = {4, 128}, .models = {std::vector<float>(512, 1.0F)}, .base = std::vector<float>(512)};
  double sum = 0;
  constexpr int kSeeds = 400;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    TestMerge merge{
        "dare_linear", {{"rescale_norm", std::string("expectation")}}, {{"weight", {1}}, {"density", {0.3}}}, seed};
    for (const float x : merge.run(inputs)) sum += x;
  }
  const double n = 512.0 * kSeeds;
  EXPECT_NEAR(sum / n, 1, 5 * std::sqrt(0.7 / 0.3 / n));  // the variance of a Bernoulli divided by its p
}

// ---- Masks beside the weights ---------------------------------------------------------------------------------------

TEST(Emr, MaskAndScaleBringBackAModelsL1Norm) {
  const TestTensor inputs = tensor(3);
  const MethodInfo& emr = *find_method("emr");
  const MethodParameters parameters(emr, 3);
  const std::vector<TensorJob> jobs = {
      {.name = "w", .shape = inputs.shape, .num_models = 3, .has_base = true, .parameters = &parameters}};
  const auto model = or_throw(emr.make(emr, jobs, 1));
  const BlockLayout blocks = layout(Pieces::kBlocks, inputs.shape);
  const auto bytes = [](const std::vector<float>& x) { return reinterpret_cast<const std::byte*>(x.data()); };
  std::vector<float> merged(inputs.base.size());
  std::vector<std::vector<std::byte>> masks(3, std::vector<std::byte>((merged.size() + 7) / 8));
  const auto merge = or_throw(model->tensor(jobs[0]));
  for (const bool writing : {false, true}) {
    for (std::int64_t b = 0; b < blocks.num_blocks; ++b) {
      const std::int64_t first = b * blocks.block_elements;
      std::vector<Piece> pieces;
      std::vector<std::byte*> extras;
      for (std::size_t m = 0; m < 3; ++m) {
        pieces.push_back({bytes(inputs.models[m]) + 4 * first, DType::kF32});
        extras.push_back(masks[m].data() + first / 8);
      }
      const Block block{b,
                        first,
                        std::min(blocks.block_elements, blocks.num_elements - first),
                        pieces,
                        {bytes(inputs.base) + 4 * first, DType::kF32}};
      if (writing) {
        merge->apply(block, {reinterpret_cast<std::byte*>(merged.data() + first), DType::kF32, extras}, 0);
      } else {
        model->reduce(0, jobs[0], block, 0);
      }
    }
    if (!writing) or_throw(model->finish(0));
  }
  EXPECT_EQ(model->extra_outputs(jobs[0]).size(), 3U);
  for (std::size_t m = 0; m < 3; ++m) {
    const float scale = model->summary_tensors()[m].values[0];
    double original = 0, restored = 0;
    for (std::size_t i = 0; i < merged.size(); ++i) {
      const float delta = inputs.models[m][i] - inputs.base[i], tau = merged[i] - inputs.base[i];
      const bool kept = (static_cast<unsigned>(masks[m][i / 8]) >> (i % 8) & 1U) != 0;
      if (std::abs(tau) > 1e-6F) {
        EXPECT_EQ(kept, delta * tau > 0) << i;
      }
      original += std::abs(delta);
      restored += kept ? std::abs(scale * tau) : 0;
    }
    EXPECT_NEAR(restored / original, 1, 1e-4);
  }
}

// ---- KnOTS on adapters ----------------------------------------------------------------------------------------------

TEST(Knots, OnAdaptersEqualsKnotsOnTheirDenseDeltas) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  const auto random = [&](Eigen::Index rows, Eigen::Index columns) {
    return Matrix(Matrix::NullaryExpr(rows, columns, [&] { return normal(generator); }));
  };
  const std::vector<LowRank> adapters = {
      {random(20, 4), random(4, 13)}, {random(20, 2), random(2, 13)}, {random(20, 3), random(3, 13)}};
  std::vector<Matrix> dense;
  for (const LowRank& adapter : adapters) dense.push_back(adapter.b * adapter.a);
  for (const auto inner : {KnotsRule::Inner::kAverage, KnotsRule::Inner::kTies}) {
    const KnotsRule rule{inner, {1, 1, 1}};
    const LowRank merged = knots(adapters, rule);
    EXPECT_LE(merged.b.cols(), 9);
    // f32 factors of numbers around 5; a singular vector's sign does not matter to a mean, nor to TIES at density 1.
    EXPECT_LT((Matrix(merged.b * merged.a) - knots(dense, rule)).cwiseAbs().maxCoeff(), 2e-4F);
  }
}

}  // namespace
}  // namespace skein::merge
