#include "skein/merge/adapter_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/merge/adapter_source.h"
#include "skein/merge/low_rank.h"
#include "skein/merge/random.h"

namespace skein::merge {
namespace {

using testing::HasSubstr;

const std::string kGolden = std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge/";

using Values = std::vector<float>;

// A module's two matrices, or what a golden has of one.
struct Pair {
  Values a, b;
  std::int64_t d_out = 0, d_in = 0, rank = 0;
  Values dense(double scale = 1) const { return dense_product({d_out, d_in, rank, b, a}, scale); }
};
using Adapter = std::map<std::string, Pair>;

// Of the models of a recipe: adapters/NAME with a weight each.
std::string recipe_of(const std::string& method, const std::vector<std::pair<std::string, double>>& adapters,
                      const std::string& more) {
  std::string text = concat("merge_method: ", method, "\nmodels:\n");
  for (const auto& [name, weight] : adapters) {
    text += concat("- {model: adapters/", name, ", parameters: {weight: ", weight, "}}\n");
  }
  return text + "parameters: {" + more + "}\n";
}

struct Merged {
  Adapter adapter;
  MergedAdapter report;
  std::vector<std::string> warnings;
};

Result<Merged> merge(const std::string& text, std::uint64_t seed = 0) {
  SKEIN_ASSIGN(const auto recipes, parse_recipes(text, kGolden + "recipe.yml"));
  SKEIN_ASSIGN(const bool adapters, merges_adapters(real_env(), recipes[0]));
  if (!adapters) return Error{"these are models"};
  const std::string folder =
      (std::filesystem::temp_directory_path() / concat("skein_adapter_merge_", getpid())).string();
  or_throw(real_env().make_folders(folder));
  Merged merged;
  auto report = merge_adapters(real_env(), recipes[0], seed, folder, text, "Skein", merged.warnings);
  if (report.ok()) {
    merged.report = *report;
    const AdapterFile file = or_throw(read_adapter_file(real_env(), folder));  // as PEFT would find it: with its config
    for (const LoraTensors& lora : file.adapter.modules) {
      const SlotName& slot = file.slots[lora.slot_idx];
      EXPECT_EQ(lora.scale, 1);
      merged.adapter[slot.module] = {lora.a, lora.b, slot.d_out, slot.d_in, lora.rank};
    }
  }
  or_throw(real_env().remove_tree(folder));
  if (!report.ok()) return report.error();
  return merged;
}

Adapter load_adapter(const std::string& name) {
  const AdapterFile file = or_throw(read_adapter_file(real_env(), kGolden + "adapters/" + name));
  Adapter adapter;
  for (const LoraTensors& lora : file.adapter.modules) {
    const SlotName& slot = file.slots[lora.slot_idx];
    Pair pair{lora.a, lora.b, slot.d_out, slot.d_in, lora.rank};
    for (float& value : pair.a) value *= static_cast<float>(lora.scale);
    adapter[slot.module] = pair;
  }
  return adapter;
}

class Golden {
 public:
  Golden() : file_(or_throw(open_safetensors(real_env(), kGolden + "adapters/combined.safetensors"))) {}
  Adapter adapter(const std::string& combination) const {
    Adapter adapter;
    for (const TensorInfo& info : file_->tensors()) {
      const std::string start = combination + "|", a_end = ".lora_A", b_end = ".lora_B";
      if (!info.name.starts_with(start)) continue;
      const bool is_a = info.name.ends_with(a_end);
      if (!is_a && !info.name.ends_with(b_end)) continue;
      Pair& pair = adapter[info.name.substr(start.size(), info.name.size() - start.size() - a_end.size())];
      Values& values = is_a ? pair.a : pair.b;
      values.resize(*checked_numel(info.shape));
      or_throw(file_->read(info.name, DType::kF32, std::as_writable_bytes(std::span(values))));
      (is_a ? pair.d_in : pair.d_out) = info.shape[is_a ? 1 : 0];
      pair.rank = info.shape[is_a ? 0 : 1];
    }
    return adapter;
  }
  std::vector<bool> mask(const std::string& name) const {
    const TensorInfo* info = file_->find(name);
    std::vector<std::byte> bytes(*checked_numel(info->shape));
    or_throw(file_->read(name, DType::kU8, bytes));
    std::vector<bool> mask;
    for (const std::byte byte : bytes) mask.push_back(byte != std::byte{0});
    return mask;
  }

 private:
  std::unique_ptr<Checkpoint> file_;
};

double largest(const Values& values) {
  double result = 0;
  for (const float value : values) result = std::max(result, std::abs(static_cast<double>(value)));
  return result;
}

// Largest difference as a share of the largest element.
double distance(const Values& ours, const Values& theirs) {
  EXPECT_EQ(ours.size(), theirs.size());
  double result = 0;
  for (std::size_t at = 0; at < ours.size(); ++at)
    result = std::max(result, std::abs(static_cast<double>(ours[at]) - theirs[at]));
  return result / std::max(largest(theirs), 1e-30);
}

// A few roundings of f32 in sums of at most 13 products.
constexpr double kSums = 13 * 1.2e-7;

const std::vector<std::pair<std::string, double>> kTwo = {{"two", 0.7}, {"three", 0.4}};
const std::vector<std::pair<std::string, double>> kSigned = {{"two", 0.7}, {"three", -0.4}};

TEST(AdapterMerge, HasPeftsMatricesWherePeftCombinesThemApart) {
  const Golden golden;
  for (const auto& [combination, recipe] : std::map<std::string, std::string>{
           {"linear", recipe_of("linear", kSigned, "convention: peft")},
           {"ties", recipe_of("ties", kTwo, "convention: peft, density: 0.5")},
           {"ties_frequency", recipe_of("ties", kTwo, "convention: peft, density: 0.7, majority_sign: frequency")},
           {"magnitude_prune", recipe_of("magnitude_prune", kTwo, "density: 0.4")}}) {
    const Adapter ours = or_throw(merge(recipe)).adapter, theirs = golden.adapter(combination);
    ASSERT_EQ(ours.size(), theirs.size()) << combination;
    for (const auto& [module, pair] : theirs) {
      EXPECT_LT(distance(ours.at(module).a, pair.a), kSums) << combination << " " << module;
      EXPECT_LT(distance(ours.at(module).b, pair.b), kSums) << combination << " " << module;
    }
  }
}

TEST(AdapterMerge, HasPeftsProductsWhereMatricesAreNotUnique) {
  const Golden golden;
  // Truncations are as exact as LAPACK's f32 singular vectors on PEFT's side, 18 columns wide.
  for (const auto& [combination, recipe] : std::map<std::string, std::string>{
           {"cat", recipe_of("cat", kSigned, "")},
           {"cat_three", recipe_of("cat", {{"two", 0.7}, {"three", 0.4}, {"patterns", 0.5}}, "")},
           {"svd", recipe_of("svd", kTwo, "rank: 3")},
           {"svd_default_rank", recipe_of("svd", {{"two", 0.7}, {"patterns", 0.4}}, "rank: 5")},
           {"ties_svd", recipe_of("ties_svd", kTwo, "density: 0.5, rank: 6")},
           {"magnitude_prune_svd", recipe_of("magnitude_prune_svd", kTwo, "density: 0.4, rank: 5")}}) {
    const Adapter ours = or_throw(merge(recipe)).adapter, theirs = golden.adapter(combination);
    ASSERT_EQ(ours.size(), theirs.size()) << combination;
    for (const auto& [module, pair] : theirs) {
      EXPECT_LT(distance(ours.at(module).dense(), pair.dense()), 5e-6) << combination << " " << module;
    }
  }
}

// PEFT's rule for random pruning, in double precision, given which elements each adapter keeps.
Values prune_by_mask(const std::vector<Values>& tensors, const std::vector<double>& weights,
                     const std::vector<std::vector<bool>>& masks, double density, bool elects) {
  Values result(tensors[0].size());
  for (std::size_t at = 0; at < result.size(); ++at) {
    std::vector<double> kept;
    double vote = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      kept.push_back(masks[i][at] ? tensors[i][at] / density : 0);
      vote += kept.back();
    }
    double sum = 0, agreeing = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (elects && !(kept[i] * (vote >= 0 ? 1 : -1) > 0)) continue;
      sum += weights[i] * kept[i];
      ++agreeing;
    }
    result[at] = static_cast<float>(elects ? sum / std::max(agreeing, 1.0) : sum);
  }
  return result;
}

TEST(AdapterMerge, DropsAsPeftDoesWhenEitherMaskIsReplayed) {
  const Golden golden;
  const double density = 0.6;
  const AdapterFile files[] = {or_throw(read_adapter_file(real_env(), kGolden + "adapters/two")),
                               or_throw(read_adapter_file(real_env(), kGolden + "adapters/three"))};
  for (const bool elects : {false, true}) {
    const std::string method = elects ? "dare_ties" : "dare_linear";
    const Adapter theirs = golden.adapter(method);
    const Adapter ours = or_throw(merge(recipe_of(method, kTwo, "convention: peft, density: 0.6"), 3)).adapter;
    for (const auto& [module, pair] : theirs) {
      for (const bool is_a : {true, false}) {
        std::vector<Values> tensors;
        std::vector<double> weights;
        std::vector<std::vector<bool>> their_masks, our_masks;
        for (int i = 0; i < 2; ++i) {
          for (const LoraTensors& lora : files[i].adapter.modules) {
            if (files[i].slots[lora.slot_idx].module != module) continue;
            tensors.push_back(is_a ? lora.a : lora.b);
            weights.push_back(std::sqrt(kTwo[i].second * lora.scale));
            their_masks.push_back(
                golden.mask(concat(method, "|", module, "|mask.", kTwo[i].first, is_a ? ".A" : ".B")));
            std::vector<bool> mask;
            const StreamKey key = stream_key(3, module + (is_a ? ".lora_A.weight" : ".lora_B.weight"));
            for (std::size_t at = 0; at < tensors.back().size(); ++at) {
              mask.push_back(random_number(key, static_cast<int>(our_masks.size()), at) < mask_threshold(density));
            }
            our_masks.push_back(std::move(mask));
          }
        }
        const Pair& our = ours.at(module);
        EXPECT_LT(distance(is_a ? pair.a : pair.b, prune_by_mask(tensors, weights, their_masks, density, elects)),
                  kSums);
        EXPECT_LT(distance(is_a ? our.a : our.b, prune_by_mask(tensors, weights, our_masks, density, elects)), kSums);
      }
    }
  }
}

TEST(AdapterMerge, SumsExactlyWithRightScalesWhateverTheRanks) {
  // PEFT gives rsLoRA sources a wrong scale; the sum of the single deltas is the measure.
  const Adapter ours = or_throw(merge(recipe_of("task_arithmetic", {{"rslora", 0.5}, {"patterns", 2.0}}, ""))).adapter;
  const Adapter rslora = load_adapter("rslora"), patterns = load_adapter("patterns");
  EXPECT_EQ(ours.at("model.layers.1.self_attn.q_proj").rank, 4 + 5);
  for (const auto& [module, pair] : ours) {
    Values sum(pair.d_out * pair.d_in);
    for (const auto& [adapter, weight] : {std::pair{&rslora, 0.5F}, std::pair{&patterns, 2.0F}}) {
      if (!adapter->contains(module)) continue;
      const Values delta = adapter->at(module).dense();
      for (std::size_t at = 0; at < sum.size(); ++at) sum[at] += weight * delta[at];
    }
    EXPECT_LT(distance(pair.dense(), sum), kSums) << module;
  }
}

TEST(AdapterMerge, CutsASumToARankAndTellsTheError) {
  const Merged whole = or_throw(merge(recipe_of("linear", kTwo, "normalize: false")));
  const Merged cut = or_throw(merge(recipe_of("linear", kTwo, "normalize: false, rank: 2")));
  EXPECT_EQ(whole.report.relative_error, 0);
  double lost = 0, all = 0;
  for (const auto& [module, pair] : whole.adapter) {
    EXPECT_EQ(cut.adapter.at(module).rank, 2);
    const Values a = pair.dense(), b = cut.adapter.at(module).dense();
    for (std::size_t at = 0; at < a.size(); ++at) {
      lost += (a[at] - b[at]) * static_cast<double>(a[at] - b[at]);
      all += a[at] * static_cast<double>(a[at]);
    }
  }
  EXPECT_NEAR(cut.report.relative_error, std::sqrt(lost / all), 1e-5);
  EXPECT_GT(cut.report.relative_error, 0.1);
}

// ties on the products is ties on the fine-tunes base + product: with all ranks kept nothing is lost.
TEST(AdapterMerge, MergesProductsAsTheFineTunesTheyStandFor) {
  const Adapter ours = or_throw(merge(recipe_of("ties", kTwo, "density: 0.5, rank: 18"))).adapter;
  const Adapter two = load_adapter("two"), three = load_adapter("three");
  for (const auto& [module, pair] : ours) {
    std::vector<Values> deltas;
    for (const Adapter* adapter : {&two, &three}) {
      deltas.push_back(adapter->contains(module) ? adapter->at(module).dense() : Values(pair.d_out * pair.d_in));
      Values sizes = deltas.back();
      for (float& size : sizes) size = std::abs(size);
      std::sort(sizes.rbegin(), sizes.rend());
      const float cut = sizes[sizes.size() / 2 - 1];
      for (float& value : deltas.back()) value = std::abs(value) >= cut ? value : 0;
    }
    Values expected(pair.d_out * pair.d_in);
    for (std::size_t at = 0; at < expected.size(); ++at) {
      const double moved[] = {0.7 * deltas[0][at], 0.4 * deltas[1][at]};
      const double sign = moved[0] + moved[1] >= 0 ? 1 : -1;
      double sum = 0, weights = 0;
      for (const int i : {0, 1}) {
        if (moved[i] * sign > 0) sum += moved[i], weights += i == 0 ? 0.7 : 0.4;
      }
      expected[at] = static_cast<float>(weights == 0 ? 0 : sum / weights);
    }
    EXPECT_LT(distance(pair.dense(), expected), 5e-6) << module;
  }
}

std::map<std::string, Values> merge_ia3_vectors(const std::string& text) {
  const auto recipes = or_throw(parse_recipes(text, kGolden + "recipe.yml"));
  EXPECT_TRUE(or_throw(merges_adapters(real_env(), recipes[0])));
  const std::string folder = (std::filesystem::temp_directory_path() / concat("skein_ia3_merge_", getpid())).string();
  or_throw(real_env().make_folders(folder));
  std::vector<std::string> warnings;
  or_throw(merge_adapters(real_env(), recipes[0], 0, folder, text, "Skein", warnings));
  std::map<std::string, Values> vectors;
  const auto file = or_throw(open_safetensors(real_env(), folder + "/adapter_model.safetensors"));
  for (const TensorInfo& info : file->tensors()) {
    Values& values = vectors[info.name];
    values.resize(*checked_numel(info.shape));
    or_throw(file->read(info.name, DType::kF32, std::as_writable_bytes(std::span(values))));
  }
  or_throw(real_env().remove_tree(folder));
  return vectors;
}

Values vector_of(const std::string& file, const std::string& name) {
  const auto weights = or_throw(open_safetensors(real_env(), kGolden + "adapters/" + file));
  Values values(*checked_numel(weights->find(name)->shape));
  or_throw(weights->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

TEST(AdapterMerge, SumsIa3VectorsAsPeftAndAroundOnes) {
  const std::vector<std::pair<std::string, double>> quarters = {{"ia3_one", 0.25}, {"ia3_two", 0.75}};
  const auto peft = merge_ia3_vectors(recipe_of("linear", quarters, "convention: peft"));
  const auto around_ones = merge_ia3_vectors(recipe_of("linear", quarters, ""));
  // Weights that sum to 1/2: the plain sum halves every activation, around ones the effect is halved.
  const auto halved = merge_ia3_vectors(recipe_of("task_arithmetic", {{"ia3_one", 0.5}}, ""));
  ASSERT_EQ(peft.size(), 9U);
  for (const auto& [name, values] : peft) {
    const std::string module = name.substr(17, name.size() - 17 - 6);
    const Values theirs = vector_of("combined_ia3.safetensors", module);
    const Values one = vector_of("ia3_one/adapter_model.safetensors", name);
    for (std::size_t at = 0; at < values.size(); ++at) {
      EXPECT_NEAR(values[at], theirs[at], 3e-7) << name;
      EXPECT_NEAR(around_ones.at(name)[at], theirs[at], 3e-7) << name;
      EXPECT_NEAR(halved.at(name)[at], 1 + 0.5 * (one[at] - 1), 3e-7) << name;
    }
  }
}

TEST(AdapterMerge, RefusesByNameWhatItDoesNotMerge) {
  const auto message = [](const std::string& text) { return merge(text).error().message; };
  EXPECT_THAT(message(recipe_of("ties", {{"two", 1}, {"dora", 1}}, "")), HasSubstr("use_dora"));
  EXPECT_THAT(message(recipe_of("ties", {{"two", 1}, {"patterns", 1}}, "convention: peft")), HasSubstr("of one rank"));
  EXPECT_THAT(message(recipe_of("linear", {{"two", 1}, {"ia3_one", 1}}, "")),
              HasSubstr("do not merge with each other"));
  EXPECT_THAT(message(recipe_of("breadcrumbs", kTwo, "convention: peft")), HasSubstr("PEFT has no breadcrumbs"));
  EXPECT_THAT(message(recipe_of("linear", kTwo, "rank: 0.5")), HasSubstr("a whole number from 1 was expected"));
  EXPECT_THAT(message(recipe_of("linear", kTwo, "rnak: 4")), HasSubstr("did you mean rank"));
  EXPECT_THAT(message("merge_method: linear\nmodels:\n- {model: adapters/two, parameters: {weight: 1}}\n"
                      "- {model: models/f32/base, parameters: {weight: 1}}\n"),
              HasSubstr("write BASE+ADAPTER"));
  EXPECT_THAT(message(recipe_of("linear", kTwo, "") + "chat_template: chatml\n"), HasSubstr("writes no tokenizer"));
}

}  // namespace
}  // namespace skein::merge
