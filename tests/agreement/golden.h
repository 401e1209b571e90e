// Goldens, the models they are of, and the bounds within which our numbers must lie.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/io/checkpoint.h"
#include "skein/nn/backbone.h"
#include "skein/nn/packed_batch.h"

namespace skein::agreement {

// Goldens are f64 results rounded once, beside `error_f32` and `error_bf16`: how far the peer's own forward in that
// precision is from them, at most. Ours sums the same products in another order, so its error is another draw of the same
// size (0.5 to 1.8 of the peer's when these tests were written); the largest of some thousand entries varies by less than
// 2 between draws, and blocked against running sums account for another 2. A wrong angle, mask or scale is off by
// hundreds of bounds, a wrong epsilon by several.
constexpr double kOtherOrder = 4;

// tests/golden/agreement/NAME.safetensors.
class Golden {
 public:
  explicit Golden(const std::string& name);
  bool has(const std::string& name) const { return file_->find(name) != nullptr; }
  at::Tensor floats(const std::string& name) const;              // f32
  std::vector<std::int32_t> ids(const std::string& name) const;  // of an I64 tensor
  double scalar(const std::string& name) const;                  // of a (1) f32 tensor
  // Our bound for logits: kOtherOrder times the peer's error in the dtype.
  double bound(c10::ScalarType dtype) const;
  // Names that begin with the prefix, without it, sorted.
  std::vector<std::string> names_after(const std::string& prefix) const;

 private:
  std::unique_ptr<Checkpoint> file_;
};

std::string golden_folder();                      // tests/golden
std::string model_path(const std::string& file);  // under $SKEIN_TEST_MODELS, default models/
std::unique_ptr<Backbone> load(const std::string& path, c10::ScalarType dtype = c10::ScalarType::Float);
std::unique_ptr<Backbone> load_tiny(const std::string& name, c10::ScalarType dtype = c10::ScalarType::Float);

// One sequence of a golden: ids.I, or source.I and decoder.I.
struct Sequence {
  std::vector<std::int32_t> source;  // empty: decoder-only
  std::vector<std::int32_t> tokens;
};
std::vector<Sequence> sequences_of(const Golden& golden);

// Logits (T, V) f32 of each sequence, all of them packed into one batch.
std::vector<at::Tensor> batched_logits(const Backbone& backbone, const std::vector<Sequence>& sequences,
                                       ForwardState& state);
// Of one sequence, only the rows asked for: the head over a long prompt would be most of the work.
at::Tensor logits_at(const Backbone& backbone, const Sequence& sequence, const at::Tensor& rows, ForwardState& state);
// All rows of one, in steps of the given lengths (which sum to T) through a cache.
at::Tensor stepwise_logits(const Backbone& backbone, const Sequence& sequence, const std::vector<std::int64_t>& steps);

// Fails unless every |ours - golden| <= bound; says where the worst is.
void expect_close(const at::Tensor& ours, const at::Tensor& golden, double bound, const std::string& what);

}  // namespace skein::agreement
