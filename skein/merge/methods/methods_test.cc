// Every method against its naive twin, over shapes, types and parameters; and with the same bits however it is run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "skein/merge/methods/naive_reference.h"

namespace skein::merge {
namespace {

struct Setting {
  const char* label;
  TestMerge merge;
  int num_models;
  bool with_base;
};

// Weights are sums of few powers of two and deltas lie on the inputs' grid: sums that decide a sign are exact in f32.
std::vector<Setting> settings() {
  const std::vector<double> weights = {0.5, 1.25, 0.75, 1.0}, densities = {0.3, 0.2, 0.55, 1.0};
  const ModelValues weighted = {{"weight", weights}};
  const ModelValues sparse = {{"weight", weights}, {"density", densities}};
  ModelValues crumbs = sparse, della = sparse;
  crumbs["gamma"] = {0.01, 0.1, 0.6, 0.0};
  della["epsilon"] = {0.15, 0.1, 0.2, 0.15};
  using std::string;
  return {
      {"linear", {"linear", {}, weighted}, 4, false},
      {"linear, not normalised", {"linear", {{"normalize", false}}, weighted}, 4, false},
      {"passthrough", {"passthrough", {}, {}}, 1, false},
      {"passthrough, scaled", {"passthrough", {}, {{"scale", {-1.5}}}}, 1, false},
      {"task_arithmetic", {"task_arithmetic", {{"lambda", 0.7}}, weighted}, 4, true},
      {"task_arithmetic, normalised", {"task_arithmetic", {{"normalize", true}}, weighted}, 4, true},
      {"ties", {"ties", {}, sparse}, 4, true},
      {"ties, not normalised", {"ties", {{"normalize", false}, {"lambda", 1.5}}, sparse}, 4, true},
      {"ties, rescaled", {"ties", {{"rescale", true}}, sparse}, 4, true},
      {"ties, mass and count",
       {"ties", {{"elect", string("mass")}, {"denominator", string("count")}}, sparse},
       4,
       true},
      {"ties, signs counted", {"ties", {{"elect", string("count")}}, sparse}, 4, true},
      {"dare_linear", {"dare_linear", {}, sparse}, 4, true},
      {"dare_linear, not rescaled", {"dare_linear", {{"rescale", false}}, sparse}, 4, true},
      {"dare_ties", {"dare_ties", {{"normalize", true}}, sparse}, 4, true},
      {"dare_ties, by expectation", {"dare_ties", {{"rescale_norm", string("expectation")}}, sparse}, 4, true},
      {"breadcrumbs", {"breadcrumbs", {}, crumbs}, 4, true},
      {"breadcrumbs_ties", {"breadcrumbs_ties", {}, crumbs}, 4, true},
      {"della", {"della", {}, della}, 4, true},
      {"della_linear", {"della_linear", {{"rescale_norm", string("expectation")}}, della}, 4, true},
      {"slerp", {"slerp", {{"t", 0.35}}, {}}, 1, true},
      {"nuslerp", {"nuslerp", {}, weighted}, 2, false},
      {"nuslerp from a base", {"nuslerp", {}, weighted}, 2, true},
      {"nuslerp, rows", {"nuslerp", {{"nuslerp_flatten", false}}, weighted}, 2, true},
      {"nuslerp, first axis", {"nuslerp", {{"nuslerp_flatten", false}, {"nuslerp_row_wise", true}}, weighted}, 2, true},
      {"nuslerp, weights that sum to 0", {"nuslerp", {}, {{"weight", {1.0, -1.0}}}}, 2, false},
      {"multislerp", {"multislerp", {}, weighted}, 4, false},
      {"multislerp from a base", {"multislerp", {}, weighted}, 4, true},
      {"multislerp of one", {"multislerp", {}, weighted}, 1, true},
      {"karcher", {"karcher", {}, {}}, 4, false},
      {"karcher, one round", {"karcher", {{"max_iter", 1.0}}, {}}, 3, false},
      {"model_stock", {"model_stock", {}, {}}, 4, true},
      {"model_stock, rows", {"model_stock", {{"filter_wise", true}}, {}}, 3, true},
      {"sce", {"sce", {}, {}}, 4, true},
      {"sce, selected", {"sce", {{"select_topk", 0.3}}, {}}, 4, true},
      {"nearswap", {"nearswap", {{"t", 1e-3}}, {}}, 1, true},
      {"arcee_fusion", {"arcee_fusion", {}, {}}, 1, true},
      {"ram", {"ram", {{"epsilon", 2e-3}}, {}}, 4, true},
      {"ramplus_tl", {"ramplus_tl", {{"epsilon", 2e-3}}, {}}, 4, true},
  };
}

TestTensor tensor_for(const Setting& setting, Shape shape, DType type, float spread) {
  TestTensor tensor = random_tensor(std::move(shape), setting.num_models, type, spread);
  if (!setting.with_base) tensor.base.clear();
  return tensor;
}

// How far f32 may be from f64: some ten roundings of numbers no larger than what is added up, 2^-23 for an L1 factor.
void expect_close(const std::vector<float>& got, const naive::Vector& want, const TestTensor& tensor) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 0;
  for (const auto& model : tensor.models) {
    for (const float x : model) largest = std::max(largest, static_cast<double>(std::abs(x)));
  }
  const double tolerance = 0x1p-19 * std::max(largest, 1e-3);
  int shown = 0;
  for (std::size_t i = 0; i < got.size() && shown < 5; ++i) {
    if (std::abs(got[i] - want[i]) <= tolerance) continue;
    ADD_FAILURE() << "element " << i << ": got " << got[i] << ", want " << want[i];
    ++shown;
  }
}

TEST(Methods, AgreeWithTheNaiveReference) {
  const std::vector<Shape> shapes = {{140, 517}, {31, 64}, {2, 3, 5}, {129}, {5, 1}, {1}};
  for (const Setting& setting : settings()) {
    for (const Shape& shape : shapes) {
      for (const DType type : {DType::kBF16, DType::kF16, DType::kF32}) {
        SCOPED_TRACE(testing::Message() << setting.label << " " << to_string(shape) << " " << dtype_name(type));
        // Large deltas make sure that signs disagree and that bf16's grid leaves ties at every cut.
        const TestTensor tensor = tensor_for(setting, shape, type, type == DType::kBF16 ? 5e-4F : 2e-3F);
        // One element, or rows of one, can be too short for an angle in f32; the naive twin has the same trouble.
        expect_close(setting.merge.run(tensor), naive::merged(setting.merge, tensor), tensor);
        if (HasFailure()) return;
      }
    }
  }
}

std::vector<std::byte> bits_of(TestMerge merge, const TestTensor& tensor) {
  return encoded(merge.run(tensor), DType::kF32);
}

TEST(Methods, GiveTheSameBitsForAnyOrderOfBlocksAndAnyNumberOfWorkers) {
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.label);
    const TestTensor tensor = tensor_for(setting, {300, 517}, DType::kBF16, 5e-4F);
    const auto want = bits_of(setting.merge, tensor);
    TestMerge other = setting.merge;
    other.reorder = [](std::vector<std::int64_t>& order) { std::reverse(order.begin(), order.end()); };
    EXPECT_EQ(bits_of(other, tensor), want) << "blocks backwards";
    other.num_workers = 3;
    EXPECT_EQ(bits_of(other, tensor), want) << "three workers";
  }
}

TEST(Methods, GiveTheSameBitsWhenRanksShareATensor) {
  std::vector<Setting> all = settings();
  const std::vector<double> ones = {1, 1, 1};
  all.push_back({"ties, the paper's",
                 {"ties", {{"convention", std::string("paper")}}, {{"weight", ones}, {"density", {0.3, 0.3, 0.3}}}},
                 3,
                 true});
  all.push_back({"emr", {"emr", {}, {}}, 3, true});
  for (const Setting& setting : all) {
    for (const DType type : {DType::kBF16, DType::kF32}) {
      const TestTensor tensor = tensor_for(setting, {300, 517}, type, 5e-4F);
      EXPECT_EQ(encoded(setting.merge.run_on_ranks(tensor, 2), DType::kF32), bits_of(setting.merge, tensor))
          << setting.label << " " << dtype_name(type);
    }
  }
}

class Targets : public testing::Test {
 protected:
  static void use(std::int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override { use(0); }
};

TEST_F(Targets, GiveTheSameBits) {
  const std::int64_t all = hwy::SupportedTargets();
  for (const Setting& setting : settings()) {
    for (const DType type : {DType::kBF16, DType::kF16, DType::kF32}) {
      TestTensor tensor = tensor_for(setting, {131, 517}, type, 5e-4F);
      tensor.output = type;
      use(0);
      const auto want = bits_of(setting.merge, tensor);
      for (std::int64_t rest = all; rest != 0; rest &= rest - 1) {
        use(rest & -rest);
        EXPECT_EQ(bits_of(setting.merge, tensor), want)
            << setting.label << " " << dtype_name(type) << " " << hwy::TargetName(rest & -rest);
      }
    }
  }
}

}  // namespace
}  // namespace skein::merge
