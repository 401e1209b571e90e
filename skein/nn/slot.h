// Where an expert may attach: every linear of the backbone. nn/ declares it and knows no expert; experts/ and route/
// fill it, as a file system's user supplies a filter policy.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/linear.h"

namespace skein {

struct ForwardState;

// What a filler asks the backbone to put into SequenceRows.
enum class RowFacts {
  kNone,
  kSequences,  // which sequence a row belongs to
  kSentences,  // and the mean embedding of each sequence's input
};

// What stands in the slots of one request. Const while it computes; what it must remember travels in ForwardState.
class SlotFiller {
 public:
  virtual ~SlotFiller() = default;
  // The outputs of the group's linears for x (N, D_in), experts included: one (N, D_out) per part, in the dtype of x.
  // Rows are tokens of a packed batch: there are no padding rows.
  virtual std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const = 0;
  virtual RowFacts wanted_facts() const { return RowFacts::kNone; }
  // Whether a choice depends on all rows of a prompt, which must then come in one pass.
  virtual bool reads_whole_prompts() const { return wanted_facts() == RowFacts::kSentences; }

  // A filler that splits computes forward() as add_experts(x, apply_frozen(group, product_input(x))), so that its rows
  // can share the frozen weights' product with those of other fillers.
  virtual bool splits() const { return false; }
  virtual at::Tensor product_input(const LinearGroup&, const at::Tensor& x, ForwardState&) const { return x; }
  // outputs (N, D_out) per part: changed in place or replaced.
  virtual void add_experts(const LinearGroup&, const at::Tensor& /*x*/, std::vector<at::Tensor>& /*outputs*/,
                           ForwardState&) const {}
};

// The group's outputs through state.filler, or of the frozen weights alone if there is none.
std::vector<at::Tensor> apply_slots(const LinearGroup& group, const at::Tensor& x, ForwardState& state);

}  // namespace skein
