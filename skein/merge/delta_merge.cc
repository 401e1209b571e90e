#include "skein/merge/delta_merge.h"

#include <algorithm>

namespace skein::merge {
namespace {

// The blocks of one job's deltas.
class DeltaBlocks {
 public:
  DeltaBlocks(const TensorJob& job, std::vector<std::vector<float>> deltas) : job_(job), deltas_(std::move(deltas)) {
    if (job.has_base) zeros_.assign(static_cast<std::size_t>(*checked_numel(job.shape)), 0.0F);
  }

  template <class Body>
  void for_each(Pieces pieces, const Body& body) const {
    const BlockLayout blocks = layout(pieces, job_.shape);
    for (std::int64_t index = 0; index < blocks.num_blocks; ++index) {
      const std::int64_t first = index * blocks.block_elements;
      std::vector<Piece> models;
      for (const auto& delta : deltas_) models.push_back(piece_at(delta, first));
      Block block{
          .index = index, .first = first, .count = std::min(blocks.block_elements, blocks.num_elements - first)};
      block.models = models;
      if (job_.has_base) block.base = piece_at(zeros_, first);
      body(block);
    }
  }

 private:
  static Piece piece_at(const std::vector<float>& values, std::int64_t first) {
    return {reinterpret_cast<const std::byte*>(values.data() + first), DType::kF32};
  }

  const TensorJob& job_;
  std::vector<std::vector<float>> deltas_;
  std::vector<float> zeros_;
};

}  // namespace

Status merge_deltas(const MethodInfo& method, std::vector<TensorJob> jobs, const DeltasOf& deltas_of,
                    const std::function<Status(std::size_t job_idx, std::vector<float> merged)>& on_merged) {
  for (std::size_t at = 0; at < jobs.size(); ++at) {
    jobs[at].has_base = method.base != BaseRole::kNone;
    jobs[at].working_dtype = DType::kF32;
    jobs[at].index = static_cast<std::int64_t>(at);
  }
  SKEIN_ASSIGN(const std::unique_ptr<ModelMerge> model, method.make(method, jobs, 1));
  for (int sweep = 0; sweep < model->num_sweeps(); ++sweep) {
    for (std::size_t at = 0; at < jobs.size(); ++at) {
      DeltaBlocks(jobs[at], deltas_of(at)).for_each(Pieces::kBlocks, [&](const Block& block) {
        model->reduce(sweep, jobs[at], block, 0);
      });
    }
    SKEIN_TRY(model->finish(sweep));
  }
  for (std::size_t at = 0; at < jobs.size(); ++at) {
    const DeltaBlocks blocks(jobs[at], deltas_of(at));
    SKEIN_ASSIGN(const std::unique_ptr<TensorMerge> tensor, model->tensor(jobs[at]));
    for (int pass = 0; pass < tensor->num_passes(); ++pass) {
      blocks.for_each(tensor->pieces(), [&](const Block& block) { tensor->reduce(pass, block, 0); });
      SKEIN_TRY(tensor->finish(pass));
    }
    std::vector<float> merged(static_cast<std::size_t>(*checked_numel(jobs[at].shape)));
    blocks.for_each(tensor->pieces(), [&](const Block& block) {
      tensor->apply(block, Output{reinterpret_cast<std::byte*>(merged.data() + block.first), DType::kF32, {}}, 0);
    });
    SKEIN_TRY(on_merged(at, std::move(merged)));
  }
  return {};
}

}  // namespace skein::merge
