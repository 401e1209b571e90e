#include "skein/nn/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "skein/base/check.h"
#include "skein/nn/kernels/one_query.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// `count` sequences of `length` rows from row `begin` of x (N, H, Dh) -> (count, H, length, Dh), a view.
at::Tensor sequences(const at::Tensor& x, std::int64_t begin, std::int64_t count, std::int64_t length) {
  return x.narrow(0, begin, count * length).view({count, length, x.size(1), x.size(2)}).transpose(1, 2);
}

std::pair<at::Tensor, at::Tensor> keys_and_values(const AttentionPlan& plan, const AttentionRun& run, int layer,
                                                  const at::Tensor& k, const at::Tensor& v) {
  if (run.cache == nullptr) {
    return {sequences(k, run.key_begin, run.count, run.key_length),
            sequences(v, run.key_begin, run.count, run.key_length)};
  }
  if (plan.cross) {
    const KvSequence::Cross& cross = run.cache->cross.at(layer);
    return {sequences(cross.k, 0, 1, cross.k.size(0)), sequences(cross.v, 0, 1, cross.v.size(0))};
  }
  const auto [all_k, all_v] =
      run.cache->append(layer, k.narrow(0, run.begin, run.length), v.narrow(0, run.begin, run.length));
  return {sequences(all_k, run.key_begin, 1, run.key_length), sequences(all_v, run.key_begin, 1, run.key_length)};
}

std::optional<at::Tensor> mask_argument(const AttentionRun& run) {
  return run.mask.defined() ? std::optional(run.mask) : std::nullopt;
}

// (count, H, length, Dh) -> rows (count * length, H * Dh).
at::Tensor rows_of(const at::Tensor& attended) {
  return attended.transpose(1, 2).reshape({attended.size(0) * attended.size(2), attended.size(1) * attended.size(3)});
}

// Writes a run's rows into `out`, or becomes it when the run is all there is: one copy at most.
void place_rows(at::Tensor& out, const at::Tensor& rows, std::int64_t begin, std::int64_t num_rows) {
  if (begin == 0 && rows.size(0) == num_rows) {
    out = rows;
    return;
  }
  if (!out.defined()) out = at::zeros({num_rows, rows.size(1)}, rows.options());
  out.narrow(0, begin, rows.size(0)).copy_(rows);
}

// Any device, gradients by libtorch.
at::Tensor attend_portable(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
                           int layer, double scale) {
  std::vector<at::Tensor> parts;
  for (const AttentionRun& run : plan.runs) {
    const auto [keys, values] = keys_and_values(plan, run, layer, k, v);
    parts.push_back(
        rows_of(at::scaled_dot_product_attention(sequences(q, run.begin, run.count, run.length), keys, values,
                                                 mask_argument(run), 0.0, run.causal, scale, true)));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

// A decoding step: one query row against a cache.
struct QueryJob {
  std::int64_t row;
  at::Tensor k, v;  // (1, Hkv, keys, Dh)
};

// All of them, each head of keys a task of its own.
void attend_queries(const std::vector<QueryJob>& jobs, const at::Tensor& q, double scale, at::Tensor& out) {
  const std::int64_t kv_heads = jobs.front().k.size(1), d_head = q.size(2), heads_per_kv = q.size(1) / kv_heads;
  const std::int64_t bytes = q.element_size();
  std::int64_t work = 0;
  for (const QueryJob& job : jobs) work += job.k.size(2) * q.size(1) * d_head;
  const auto count = static_cast<std::int64_t>(jobs.size()) * kv_heads;
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 * count / std::max<std::int64_t>(work, 1));
  const auto at = [bytes](const at::Tensor& x, std::int64_t offset) {
    return static_cast<const char*>(x.const_data_ptr()) + offset * bytes;
  };
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t task = begin; task < end; ++task) {
      const QueryJob& job = jobs[task / kv_heads];
      const std::int64_t head = task % kv_heads, place = head * heads_per_kv * d_head;
      const OneQuery shape{element_of(q),
                           heads_per_kv,
                           d_head,
                           job.k.size(2),
                           job.k.stride(2),
                           job.v.stride(2),
                           static_cast<float>(scale)};
      scratch.resize(heads_per_kv * (shape.keys + d_head));
      attend_one_query(shape, at(q, job.row * q.stride(0) + place), at(job.k, head * job.k.stride(1)),
                       at(job.v, head * job.v.stride(1)), scratch.data(),
                       static_cast<char*>(out.mutable_data_ptr()) + (job.row * out.stride(0) + place) * bytes);
    }
  });
}

// The flash kernel of libtorch's CPU side, called by its own name: it shares key heads among query heads without
// copying them. log_sums: per run, kept for the backward pass if not null.
at::Tensor attend_on_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
                         int layer, double scale, tensor_list* log_sums) {
  at::Tensor out;
  std::vector<QueryJob> queries;
  for (const AttentionRun& run : plan.runs) {
    const auto [keys, values] = keys_and_values(plan, run, layer, k, v);
    if (run.cache != nullptr && run.length == 1 && !run.mask.defined() && has_kernels(q)) {
      queries.push_back({run.begin, keys, values});
      continue;
    }
    const auto [attended, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(
        sequences(q, run.begin, run.count, run.length), keys, values, 0.0, run.causal, mask_argument(run), scale);
    place_rows(out, rows_of(attended), run.begin, q.size(0));
    if (log_sums != nullptr) log_sums->push_back(log_sum);
  }
  if (!queries.empty()) {
    if (!out.defined()) out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
    attend_queries(queries, with_plain_rows(q), scale, out);
  }
  return out;
}

struct PlanHolder : torch::CustomClassHolder {
  explicit PlanHolder(std::shared_ptr<const AttentionPlan> held) : plan(std::move(held)) {}
  std::shared_ptr<const AttentionPlan> plan;
};

// One node for all runs: narrow()'s own gradient would fill a whole (N, H, Dh) for every sequence.
class PackedAttention : public torch::autograd::Function<PackedAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::shared_ptr<const AttentionPlan>& plan, double scale) {
    tensor_list saved{q, k, v, at::Tensor()};
    tensor_list log_sums;
    saved[3] = attend_on_cpu(q, k, v, *plan, 0, scale, &log_sums);
    saved.insert(saved.end(), log_sums.begin(), log_sums.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["plan"] = c10::IValue::make_capsule(c10::make_intrusive<PlanHolder>(plan));
    ctx->saved_data["scale"] = scale;
    return saved[3];
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const auto holder = ctx->saved_data["plan"].toCapsule();
    const AttentionPlan& plan = *static_cast<const PlanHolder*>(holder.get())->plan;
    const at::Tensor out = saved[3].view(q.sizes()), grad = grads[0].contiguous().view(q.sizes());  // (N, H, Dh)
    at::Tensor grad_q = at::zeros(q.sizes(), q.options());
    at::Tensor grad_k = at::zeros(k.sizes(), k.options());
    at::Tensor grad_v = at::zeros(v.sizes(), v.options());
    for (std::size_t i = 0; i < plan.runs.size(); ++i) {
      const AttentionRun& run = plan.runs[i];
      const auto queries = [&](const at::Tensor& x) { return sequences(x, run.begin, run.count, run.length); };
      const auto keys = [&](const at::Tensor& x) { return sequences(x, run.key_begin, run.count, run.key_length); };
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          queries(grad), queries(q), keys(k), keys(v), queries(out), saved[4 + i], 0.0, run.causal, mask_argument(run),
          ctx->saved_data["scale"].toDouble());
      queries(grad_q).copy_(dq);
      keys(grad_k).add_(dk);  // several targets may read one source
      keys(grad_v).add_(dv);
    }
    return {grad_q, grad_k, grad_v, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::shared_ptr<const AttentionPlan>& plan, int layer, double scale) {
  if (plan->runs.empty()) return at::zeros({q.size(0), q.size(1) * q.size(2)}, q.options());
  if (!q.is_cpu()) return attend_portable(q, k, v, *plan, layer, scale);
  const bool needs_grad = at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  if (!needs_grad) return attend_on_cpu(q, k, v, *plan, layer, scale, nullptr);
  SKEIN_CHECK(!plan->has_cache());
  return PackedAttention::apply(q, k, v, plan, scale);
}

}  // namespace skein
