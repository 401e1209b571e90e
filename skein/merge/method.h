// The interface between the executor and the merge methods.
//
// A recipe names one method. The executor asks the registry for it (find_method), checks the recipe's parameters
// against its table of ParameterSpecs, makes one ModelMerge for the whole merge and, for every output tensor, one
// TensorMerge:
//
//   for sweep < model.num_sweeps():                      // most methods: none
//     every tensor, every block: model.reduce(sweep, job, block, worker)
//     sum model.partials(sweep) over ranks;  model.finish(sweep)
//   every tensor:
//     for pass = 0; pass < tensor.num_passes(); ++pass:  // num_passes() may shrink after a finish()
//       every block: tensor.reduce(pass, block, worker)
//       sum tensor.partials(pass) over ranks that shared the tensor;  tensor.finish(pass)
//     every block: tensor.apply(block, output, worker)
//   model.summary_tensors() are written beside the extra outputs
//
// Blocks. A tensor is cut into fixed pieces: layout(tensor.pieces(), shape) says how. The cut depends on the shape and
// the method only, never on memory, threads, shards or ranks. Each block goes once per pass to one worker; different
// blocks may be handed over in any order and at the same time, to different workers.
//
// Same bytes. Counters are integers; sums are kept per block, in f64, and added in block order by finish(). A rank's
// partials hold zeros for the blocks it never saw, so that summing the spans of all ranks gives exactly the numbers of
// a single rank. Random numbers are a function of (seed, tensor name, model, element), see random.h. Arithmetic is f32
// without fused multiply-add, with one rounding to the output's type at the end.
//
// Thread-safety: reduce() and apply() as above; everything else from one thread at a time per object. A ModelMerge may
// have several TensorMerges alive at once; it outlives them, as the jobs and their parameters do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "skein/base/dtype.h"
#include "skein/base/result.h"
#include "skein/base/shape.h"

namespace skein::merge {

// ---- Parameters -----------------------------------------------------------------------------------------------------

using ParameterValue = std::variant<double, bool, std::string>;

struct ParameterSpec {
  enum class Scope { kGlobal, kPerModel };
  enum class Kind { kNumber, kBool, kChoice };

  std::string name;
  Scope scope = Scope::kGlobal;
  Kind kind = Kind::kNumber;
  // What holds when the recipe is silent. Without one: an error if required, else "not given", which the method knows.
  std::optional<ParameterValue> fallback;
  bool required = false;
  std::string meaning;               // one line for the manual
  std::vector<std::string> choices;  // kChoice: the words allowed
};

struct MethodInfo;

// The values that hold for one output tensor, after gradients, filters and precedence have been resolved. Per-model
// values are those of the models only; a base has none.
class MethodParameters {
 public:
  MethodParameters() = default;
  // All fallbacks in place.
  MethodParameters(const MethodInfo& method, int num_models);

  // Fails with a sentence if the method has no such parameter in that scope, or the value has the wrong kind, is not a
  // finite number or not one of the choices. A number is taken as a bool where it is 0 or 1.
  Status set(std::string_view name, ParameterValue value);
  Status set(std::string_view name, int model_idx, ParameterValue value);
  // Names the first required value that is absent.
  Status check_complete() const;

  // Require a name of the right scope and kind with a value.
  double number(std::string_view name) const;
  double number(std::string_view name, int model_idx) const;
  bool flag(std::string_view name) const;
  std::string_view choice(std::string_view name) const;
  bool has(std::string_view name) const;
  bool has(std::string_view name, int model_idx) const;

 private:
  std::size_t find(std::string_view name) const;
  const ParameterValue& value(std::string_view name, int model_idx) const;

  const MethodInfo* method_ = nullptr;
  int num_models_ = 0;
  std::vector<std::vector<std::optional<ParameterValue>>> values_;  // [parameter][model, or 0 where global]
};

// ---- One tensor's work ----------------------------------------------------------------------------------------------

struct TensorJob {
  std::string name;    // the output tensor's; part of the key of its random numbers
  Shape shape;         // of the output and of every input
  int num_models = 0;  // inputs, the base not counted
  bool has_base = false;
  const MethodParameters* parameters = nullptr;  // outlives the merge
  std::uint64_t seed = 0;
  // The recipe's `dtype`, else the inputs' common type. Selection by magnitude compares deltas rounded to it (kBF16,
  // kF16; any other type: f32), as mergekit does; no other arithmetic depends on it.
  DType working_dtype = DType::kF32;
  std::int64_t index = 0;  // place among the jobs handed to MethodInfo::make
};

// Elements of one input, contiguous, in one of the three types methods read: kBF16, kF16, kF32 (the executor widens or
// narrows the others to f32). Any alignment.
struct Piece {
  const std::byte* data = nullptr;  // null: no such input
  DType dtype = DType::kF32;
};

struct Block {
  std::int64_t index = 0;         // which block of the tensor
  std::int64_t first = 0;         // flat index of its first element
  std::int64_t count = 0;         // elements
  std::span<const Piece> models;  // num_models, in the recipe's order
  Piece base;
};

// Where a block's result goes: kBF16, kF16 or kF32, any alignment. (An output in kF64 is widened from kF32.)
struct Output {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  // One place per extra output of the method: where this block's bytes begin. Empty if nobody wants them.
  std::span<std::byte* const> extras;
};

inline constexpr std::int64_t kBlockElements = 65536;

enum class Pieces {
  kBlocks,  // kBlockElements each, the last one shorter
  kRows,    // whole rows (along the last axis; a 1-D tensor is one row): as many as fit into kBlockElements, at least
            // one, so a row longer than that is a block of its own, and memory grows with it
  kTensor,  // one block; reduce() and apply() run alone and spread their work with parallel_for
};

struct BlockLayout {
  std::int64_t num_elements = 0;
  std::int64_t block_elements = 0;  // of all blocks but the last
  std::int64_t num_blocks = 0;      // 0 for an empty tensor
};
BlockLayout layout(Pieces pieces, const Shape& shape);

// What a pass has gathered, to be summed element-wise over ranks in place.
struct Partials {
  std::span<std::uint64_t> counts;
  std::span<double> sums;
};

class TensorMerge {
 public:
  virtual ~TensorMerge() = default;
  virtual Pieces pieces() const { return Pieces::kBlocks; }
  virtual int num_passes() const { return 0; }
  virtual void reduce(int /*pass*/, const Block&, int /*worker*/) {}
  virtual Partials partials(int /*pass*/) { return {}; }
  // Fails where the numbers allow no result (directions that cancel, for example).
  virtual Status finish(int /*pass*/) { return {}; }
  virtual void apply(const Block& block, const Output& output, int worker) = 0;
};

// ---- The whole merge ------------------------------------------------------------------------------------------------

// A tensor a method writes beside the merged ones, block by block: its bytes lie in proportion to the elements
// (`bits_per_element` each, the tensor padded to a whole byte), so that blocks never share a byte.
struct ExtraOutput {
  std::string file;  // name of the safetensors file without its ending: "emr_masks_0"
  std::string name;  // tensor name in that file
  DType dtype = DType::kU8;
  Shape shape;
  int bits_per_element = 1;
};

struct SummaryTensor {
  std::string file;
  std::string name;
  std::vector<float> values;
};

class ModelMerge {
 public:
  virtual ~ModelMerge() = default;
  // Sweeps over all tensors before the writing one.
  virtual int num_sweeps() const { return 0; }
  virtual void reduce(int /*sweep*/, const TensorJob&, const Block&, int /*worker*/) {}
  virtual Partials partials(int /*sweep*/) { return {}; }
  virtual Status finish(int /*sweep*/) { return {}; }
  // How blocks of the sweeps are cut is Pieces::kBlocks.

  virtual Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) = 0;

  virtual std::vector<ExtraOutput> extra_outputs(const TensorJob&) const { return {}; }
  virtual std::vector<SummaryTensor> summary_tensors() const { return {}; }

  // Bytes beyond the blocks themselves that this object and one TensorMerge for `job` hold at most.
  virtual std::int64_t working_bytes(const TensorJob& job) const = 0;
};

enum class BaseRole {
  kNone,      // a base listed among the models is a model like any other; one that is not listed has no effect
  kOptional,  // deltas are taken from it if there is one
  kRequired,
};

// What to do with a tensor that some inputs lack.
enum class MissingTensor {
  kError,
  kPassSingle,      // one holder only: copy
  kPassBaseSingle,  // the base is the only holder: copy
  kBaseOrSkip,      // any input lacks it: the base's, or no output tensor
};

struct MethodInfo {
  std::string name;
  std::string title;      // "TIES"
  std::string reference;  // paper
  BaseRole base = BaseRole::kRequired;
  int min_models = 1;  // the base not counted
  int max_models = 1 << 20;
  MissingTensor missing = MissingTensor::kError;
  bool uses_random_numbers = false;
  // Pieces::kTensor for matrices: the tensor and its inputs must fit into memory.
  bool whole_tensors = false;
  // Whether these parameters make the output the only model as it is, bytes and all. Null: never.
  bool (*is_copy)(const MethodParameters&) = nullptr;
  std::vector<ParameterSpec> parameters;
  // Checks values against each other and makes the merge. `jobs` lists every tensor the method will see, in output
  // order; job.index is the place in it. It must outlive the merge.
  Result<std::unique_ptr<ModelMerge>> (*make)(const MethodInfo&, std::span<const TensorJob> jobs,
                                              int num_workers) = nullptr;
};

// Null if there is none. Both live as long as the program.
const MethodInfo* find_method(std::string_view name);
const std::vector<MethodInfo>& all_methods();

}  // namespace skein::merge
