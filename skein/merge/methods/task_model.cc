// The whole merge of a method on task vectors: what is shared by its tensors, and TIES with one threshold over the
// model, as its paper has it (arXiv 2306.01708, section 3): every model's deltas are one long vector.
#include <algorithm>

#include "skein/base/concat.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/task_arithmetic.h"

namespace skein::merge {
namespace {

class TaskModel final : public ModelMerge {
 public:
  TaskModel(TaskMethod method, std::span<const TensorJob> jobs, int num_workers)
      : method_(method),
        num_workers_(num_workers),
        pool_(num_workers),
        tiles_(num_workers, TaskTensor::tiles_needed(most_models(jobs))) {}

  // Only with `trim: global`.
  Status select_over_model(std::span<const TensorJob> jobs, const TaskRule& rule);

  int num_sweeps() const override { return selection_ ? selection_->num_passes() + (majority_decides_ ? 1 : 0) : 0; }

  void reduce(int sweep, const TensorJob& job, const Block& block, int worker) override {
    if (sweep < selection_->num_passes()) {
      float* base = tiles_.tile(worker, 0);
      float* delta = tiles_.tile(worker, 1);
      for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
        kernels_.load(block.base, offset, n, base);
        for (int m = 0; m < job.num_models; ++m) {
          if (!selection_->wants(m)) continue;
          kernels_.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base, delta);
          selection_->count(sweep, m, first_block(job) + block.index, delta, n, worker);
        }
      });
      return;
    }
    const auto rule = task_rule(job, method_.elects);
    TaskTensor tensor(job, method_, *rule, num_workers_, tiles_, pool_, shared(job));
    balance_[static_cast<std::size_t>(first_block(job) + block.index)] =
        static_cast<std::uint64_t>(tensor.majority(block, worker));
  }

  Partials partials(int sweep) override {
    return sweep < selection_->num_passes() ? selection_->partials(sweep) : Partials{.counts = balance_};
  }

  Status finish(int sweep) override {
    if (sweep < selection_->num_passes()) {
      selection_->finish(sweep);
      return {};
    }
    std::uint64_t sum = 0;
    for (const std::uint64_t balance : balance_) sum += balance;
    zero_sign_ = zero_sign_of(static_cast<std::int64_t>(sum));
    return {};
  }

  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    SKEIN_ASSIGN(TaskRule rule, task_rule(job, method_.elects));
    return std::unique_ptr<TensorMerge>(
        std::make_unique<TaskTensor>(job, method_, std::move(rule), num_workers_, tiles_, pool_, shared(job)));
  }

  std::int64_t working_bytes(const TensorJob& job) const override {
    const std::int64_t blocks = layout(Pieces::kBlocks, job.shape).num_blocks;
    std::int64_t bytes = WorkerTiles::bytes(num_workers_, TaskTensor::tiles_needed(job.num_models)) +
                         (2 * job.num_models + 1) * blocks * 8;
    if (method_.sparsifier == Sparsifier::kMagnitude || method_.sparsifier == Sparsifier::kOutliers) {
      const std::int64_t scope = selection_ ? num_blocks_ : blocks;
      bytes += MagnitudeSelection::working_bytes(job.working_dtype, job.num_models, scope, num_workers_);
    }
    if (method_.sparsifier == Sparsifier::kRandom) bytes += TaskTensor::kMaskBytes;
    return bytes;
  }

 private:
  std::int64_t first_block(const TensorJob& job) const { return first_blocks_[static_cast<std::size_t>(job.index)]; }
  SharedSelection shared(const TensorJob& job) const {
    if (!selection_) return {};
    return {selection_.get(), first_block(job), majority_decides_ ? &zero_sign_ : nullptr};
  }

  TaskMethod method_;
  int num_workers_;
  CountTablePool pool_;
  WorkerTiles tiles_;
  TileKernels kernels_ = tile_kernels();
  // With `trim: global`:
  std::unique_ptr<MagnitudeSelection> selection_;
  std::vector<std::int64_t> first_blocks_;  // of each tensor, among the blocks of all
  std::int64_t num_blocks_ = 0;
  bool majority_decides_ = false;
  CombineRule::ZeroSign zero_sign_ = CombineRule::ZeroSign::kPlus;
  std::vector<std::uint64_t> balance_;
};

Status TaskModel::select_over_model(std::span<const TensorJob> jobs, const TaskRule& rule) {
  std::int64_t num_elements = 0;
  for (const TensorJob& job : jobs) {
    const BlockLayout blocks = layout(Pieces::kBlocks, job.shape);
    first_blocks_.push_back(num_blocks_);
    num_blocks_ += blocks.num_blocks;
    num_elements += blocks.num_elements;
    for (int m = 0; m < job.num_models; ++m) {
      if (job.num_models == jobs[0].num_models && job.working_dtype == jobs[0].working_dtype &&
          job.parameters->number("density", m) == jobs[0].parameters->number("density", m)) {
        continue;
      }
      return Error{concat("ties with trim: global needs one density per model and one dtype for the whole model; ",
                          printable(job.name), " differs from ", printable(jobs[0].name),
                          "; remove the gradient or filter of density, or set dtype"),
                   ErrorKind::kUsage};
    }
  }
  std::vector<RankWindow> windows;
  for (int m = 0; m < jobs[0].num_models; ++m) {
    windows.push_back(TaskTensor::window(jobs[0], rule, Sparsifier::kMagnitude, m, num_elements));
  }
  selection_ = std::make_unique<MagnitudeSelection>(jobs[0].working_dtype, num_elements, num_blocks_,
                                                    std::move(windows), rule.ties, pool_);
  majority_decides_ = rule.majority_decides;
  if (majority_decides_) balance_.assign(static_cast<std::size_t>(num_blocks_), 0);
  return {};
}

template <Sparsifier kSparsifier, bool kElects>
Result<std::unique_ptr<ModelMerge>> make(const MethodInfo& info, std::span<const TensorJob> jobs, int num_workers) {
  auto model = std::make_unique<TaskModel>(TaskMethod{kSparsifier, kElects}, jobs, num_workers);
  for (const TensorJob& job : jobs) {
    SKEIN_ASSIGN(const TaskRule rule, task_rule(job, kElects));
    if (rule.rescale == Rescale::kExpectation && kSparsifier != Sparsifier::kRandom) {
      return Error{concat(info.name, ": rescale_norm: expectation is for random masks only"), ErrorKind::kUsage};
    }
    if (!rule.global_trim) continue;
    SKEIN_TRY(model->select_over_model(jobs, rule));
    break;
  }
  return std::unique_ptr<ModelMerge>(std::move(model));
}

MethodInfo task_method(std::string name, std::string title, std::string paper, std::vector<ParameterSpec> parameters,
                       decltype(MethodInfo::make) make) {
  return {.name = std::move(name),
          .title = std::move(title),
          .reference = std::move(paper),
          .parameters = std::move(parameters),
          .make = make};
}

}  // namespace

std::vector<ParameterSpec> task_parameters(bool normalize, bool sparse, bool rescale, bool elects) {
  std::vector<ParameterSpec> specs = {
      per_model_number("weight", std::nullopt, "factor of this model's delta"),
      number("lambda", 1.0, "factor of the merged delta"),
      flag("normalize", normalize, "divide by the sum of the weights (of those kept, where signs are elected)"),
      flag("int8_mask", false, "accepted and without effect, as in mergekit"),
      // mergekit has both for all of its methods on task vectors.
      per_model_number("density", 1.0, sparse ? "share of the deltas that is kept" : "accepted and without effect"),
      flag("rescale", rescale, sparse ? "scale what is kept" : "accepted and without effect"),
  };
  if (elects) {
    specs.push_back(choice("convention", {"mergekit", "paper", "peft"}, "whose rules hold where nothing else is said"));
    specs.push_back(choice("elect", {"convention", "weighted", "mass", "count"},
                           "what elects the sign: sum of weight * delta, of delta, or of signs"));
    specs.push_back(choice("zero_sign", {"convention", "plus", "majority", "drop"},
                           "sign where that sum is 0: +, that of most elements, or nothing is kept"));
    specs.push_back(choice("denominator", {"convention", "weights", "count", "none"},
                           "what the sum of the agreeing deltas is divided by"));
  }
  return specs;
}

std::vector<MethodInfo> task_arithmetic_methods() {
  using enum Sparsifier;
  std::vector<MethodInfo> methods;
  methods.push_back(task_method("task_arithmetic", "Task arithmetic", "https://arxiv.org/abs/2212.04089",
                                task_parameters(false, false, false, false), make<kNone, false>));

  std::vector<ParameterSpec> ties = task_parameters(true, true, false, true);
  ties.push_back(choice("trim", {"convention", "tensor", "global"},
                        "whether the largest deltas are found per tensor or over the whole model"));
  ties.push_back(choice("ties_at_cut", {"convention", "lowest_index", "keep", "drop"},
                        "deltas as large as the smallest one kept: the first ones, all or none of them"));
  methods.push_back(
      task_method("ties", "TIES", "https://arxiv.org/abs/2306.01708", std::move(ties), make<kMagnitude, true>));

  for (const bool elects : {false, true}) {
    std::vector<ParameterSpec> dare = task_parameters(false, true, true, elects);
    dare.push_back(choice("rescale_norm", {"l1", "expectation"},
                          "rescale to the L1 norm of the full delta, or by exactly 1 / density"));
    methods.push_back(task_method(elects ? "dare_ties" : "dare_linear", elects ? "DARE TIES" : "Linear DARE",
                                  "https://arxiv.org/abs/2311.03099", std::move(dare),
                                  elects ? make<kRandom, true> : make<kRandom, false>));
    methods.back().uses_random_numbers = true;
  }
  for (const bool elects : {false, true}) {
    std::vector<ParameterSpec> crumbs = task_parameters(false, true, false, elects);
    crumbs.push_back(per_model_number("gamma", 0.01, "share of the deltas, the largest ones, that is dropped"));
    methods.push_back(task_method(elects ? "breadcrumbs_ties" : "breadcrumbs",
                                  elects ? "Model breadcrumbs with TIES" : "Model breadcrumbs",
                                  "https://arxiv.org/abs/2312.06795", std::move(crumbs),
                                  elects ? make<kOutliers, true> : make<kOutliers, false>));
  }
  return methods;
}

}  // namespace skein::merge
