#include "skein/merge/methods/task_rule.h"

#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

// A choice, or what the convention says where the recipe leaves it open.
std::string_view chosen(const MethodParameters& parameters, std::string_view name, std::string_view by_convention) {
  const std::string_view word = parameters.choice(name);
  return word == "convention" ? by_convention : word;
}

void read_election(const MethodParameters& parameters, TaskRule& rule) {
  using Elect = CombineRule::Elect;
  const std::string_view convention = parameters.choice("convention");
  const bool paper = convention == "paper", peft = convention == "peft";
  const std::string_view elect = chosen(parameters, "elect", paper || peft ? "mass" : "weighted");
  rule.combine.elect = elect == "mass" ? Elect::kMass : elect == "count" ? Elect::kCount : Elect::kWeighted;
  const std::string_view zero = chosen(parameters, "zero_sign", paper ? "majority" : "plus");
  rule.majority_decides = zero == "majority";
  rule.combine.zero_sign = zero == "drop" ? CombineRule::ZeroSign::kDrop : CombineRule::ZeroSign::kPlus;
  const std::string_view divide = chosen(parameters, "denominator", paper || peft ? "count" : "weights");
  // The paper and PEFT always take the mean; `normalize` is mergekit's.
  const bool divides =
      parameters.choice("denominator") != "convention" || paper || peft || parameters.flag("normalize");
  rule.combine.divide = !divides || divide == "none" ? CombineRule::Divide::kNo
                        : divide == "count"          ? CombineRule::Divide::kCount
                                                     : CombineRule::Divide::kWeights;
  if (!parameters.has("trim")) return;
  rule.global_trim = chosen(parameters, "trim", paper ? "global" : "tensor") == "global";
  const std::string_view ties = chosen(parameters, "ties_at_cut", paper ? "keep" : "lowest_index");
  rule.ties = ties == "keep" ? TiesAtCut::kKeepAll : ties == "drop" ? TiesAtCut::kDropAll : TiesAtCut::kLowestIndex;
  rule.count = paper ? TaskRule::Count::kPaper : peft ? TaskRule::Count::kPeft : TaskRule::Count::kMergekit;
}

}  // namespace

std::int64_t TaskRule::kept(double density, std::int64_t n) const {
  if (density >= 1) return n;
  if (density <= 0 || n == 0) return 0;
  const auto share = static_cast<std::int64_t>(density * static_cast<double>(n));
  switch (count) {
    case Count::kMergekit:
      return std::max<std::int64_t>(1, share);
    case Count::kPaper:
      return std::min(share + 1, n);
    case Count::kPeft:
      return share;
  }
  return share;
}

Result<TaskRule> task_rule(const TensorJob& job, bool elects) {
  const MethodParameters& parameters = *job.parameters;
  TaskRule rule;
  float sum = 0;
  for (int m = 0; m < job.num_models; ++m) {
    rule.weights.push_back(static_cast<float>(parameters.number("weight", m)));
    sum += rule.weights.back();
  }
  rule.combine.lambda = static_cast<float>(parameters.number("lambda"));
  if (elects) {
    read_election(parameters, rule);
  } else if (parameters.flag("normalize")) {
    rule.combine.constant_divisor = std::abs(sum) < 1e-8F ? 1.0F : sum;
  }
  if (parameters.has("rescale") && parameters.flag("rescale")) {
    rule.rescale = parameters.has("rescale_norm") && parameters.choice("rescale_norm") == "expectation"
                       ? Rescale::kExpectation
                       : Rescale::kL1;
  }
  return rule;
}

CombineRule::ZeroSign zero_sign_of(std::int64_t balance) {
  return balance > 0   ? CombineRule::ZeroSign::kPlus
         : balance < 0 ? CombineRule::ZeroSign::kMinus
                       : CombineRule::ZeroSign::kDrop;
}

float l1_factor(double before, double after) {
  return before < 1e-7 || after < 1e-7 ? 1.0F : static_cast<float>(before / after);
}

}  // namespace skein::merge
