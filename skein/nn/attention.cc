#include "skein/nn/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "skein/base/check.h"
#include "skein/nn/kernels/attention.h"
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
  run.cache->append(layer, k, v, run.begin, run.length);
  const auto [all_k, all_v] = run.cache->gather(layer, run.key_begin + run.key_length);
  return {sequences(all_k, run.key_begin, 1, run.key_length), sequences(all_v, run.key_begin, 1, run.key_length)};
}

// A bias on the scores that is trained (T5's, in full fine-tuning).
bool trains_bias(const AttentionPlan& plan) {
  if (!at::GradMode::is_enabled()) return false;
  for (const AttentionRun& run : plan.runs) {
    if (run.dense_mask.defined() && run.dense_mask.requires_grad()) return true;
  }
  return false;
}

std::optional<at::Tensor> mask_argument(const AttentionRun& run) {
  return run.dense_mask.defined() ? std::optional(run.dense_mask) : std::nullopt;
}
bool is_triangle(const AttentionRun& run) { return run.causal && !run.dense_mask.defined(); }

// (count, H, length, Dh) -> rows (count * length, H * Dh).
at::Tensor rows_of(const at::Tensor& attended) {
  return attended.transpose(1, 2).reshape({attended.size(0) * attended.size(2), attended.size(1) * attended.size(3)});
}

// Any device, gradients by libtorch.
at::Tensor attend_portable(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
                           int layer, double scale) {
  std::vector<at::Tensor> parts;
  for (const AttentionRun& run : plan.runs) {
    const auto [keys, values] = keys_and_values(plan, run, layer, k, v);
    std::optional<at::Tensor> mask = mask_argument(run);
    if (mask) mask = mask->to(q.scalar_type());
    parts.push_back(rows_of(at::scaled_dot_product_attention(sequences(q, run.begin, run.count, run.length), keys,
                                                             values, mask, 0.0, is_triangle(run), scale, true)));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

const void* element_at(const at::Tensor& x, std::int64_t offset) {
  return static_cast<const char*>(x.const_data_ptr()) + offset * x.element_size();
}

// Where a sequence's keys and values are: in the pages of a cache, or side by side, one page.
struct KeyRows {
  const void *k = nullptr, *v = nullptr;
  const KvSequence* cache = nullptr;  // in the place of k and v
  std::int64_t page_size = 0, offset = 0, k_stride = 0, v_stride = 0;

  KeyPages pages(std::int64_t first, std::int64_t head_offset) const {
    if (cache == nullptr) return {&k, &v, page_size, first, offset + head_offset};
    return {cache->k_pages().data(), cache->v_pages().data(), page_size, first, offset + head_offset};
  }
};

KeyRows rows_side_by_side(const at::Tensor& k, const at::Tensor& v, std::int64_t begin, std::int64_t count) {
  return {element_at(k, begin * k.stride(0)),
          element_at(v, begin * v.stride(0)),
          nullptr,
          std::max<std::int64_t>(1, count),
          0,
          k.stride(0),
          v.stride(0)};
}

KeyRows rows_in_cache(const KvSequence& cache, int layer, std::int64_t kv_width) {
  return {nullptr, nullptr, &cache, cache.page_size(), cache.layer_offset(layer), kv_width, kv_width};
}

// One query row against keys [first, first + count).
struct QueryJob {
  std::int64_t row, first, count;
  KeyRows keys;
};

// All of them, each head of keys a task of its own.
void attend_queries(const std::vector<QueryJob>& jobs, std::int64_t kv_heads, const at::Tensor& q, double scale,
                    at::Tensor& out) {
  const std::int64_t d_head = q.size(2), heads_per_kv = q.size(1) / kv_heads, bytes = q.element_size();
  std::int64_t work = 0;
  for (const QueryJob& job : jobs) work += job.count * q.size(1) * d_head;
  const auto count = static_cast<std::int64_t>(jobs.size()) * kv_heads;
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 * count / std::max<std::int64_t>(work, 1));
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t task = begin; task < end; ++task) {
      const QueryJob& job = jobs[task / kv_heads];
      const std::int64_t head = task % kv_heads, place = head * heads_per_kv * d_head;
      const OneQuery shape{element_of(q),
                           heads_per_kv,
                           d_head,
                           job.count,
                           job.keys.k_stride,
                           job.keys.v_stride,
                           static_cast<float>(scale)};
      scratch.resize(heads_per_kv * (shape.keys + d_head));
      attend_one_query(shape, element_at(q, job.row * q.stride(0) + place), job.keys.pages(job.first, head * d_head),
                       scratch.data(),
                       static_cast<char*>(out.mutable_data_ptr()) + (job.row * out.stride(0) + place) * bytes);
    }
  });
}

// Sequences of more than one row: each a job, cut into tasks of a head and some rows.
struct SequenceJob {
  AttentionShape shape;
  std::int64_t first_row;
  KeyRows keys;
  at::Tensor mask;  // (1 or H, length, keys) or undefined
  float* log_sums;  // (length, H) or null
  std::int64_t packed_offset = 0;
};

void pack_head(const SequenceJob& job, std::int64_t head, std::int64_t bytes, float* packed) {
  const KeyPages pages = job.keys.pages(0, head * job.shape.d_head);
  for (std::int64_t key = 0; key < job.shape.keys; key += pages.page_size) {
    const auto at = [&](const void* const* rows) {
      return static_cast<const char*>(rows[key / pages.page_size]) + pages.offset * bytes;
    };
    pack_keys_and_values(job.shape, key, std::min(pages.page_size, job.shape.keys - key), at(pages.k), at(pages.v),
                         packed);
  }
}

struct Task {
  std::size_t job;
  std::int64_t head, begin, end;
};

constexpr std::int64_t kTaskRows = 48;

std::vector<Task> tasks_of(const std::vector<SequenceJob>& jobs, std::int64_t heads) {
  std::vector<Task> tasks;
  for (std::size_t job = 0; job < jobs.size(); ++job) {
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t row = 0; row < jobs[job].shape.queries; row += kTaskRows) {
        tasks.push_back({job, head, row, std::min(row + kTaskRows, jobs[job].shape.queries)});
      }
    }
  }
  return tasks;
}

void attend_sequences(std::vector<SequenceJob>& jobs, std::int64_t kv_heads, const at::Tensor& q, at::Tensor& out) {
  const std::int64_t heads = q.size(1), d_head = q.size(2), bytes = q.element_size();
  std::int64_t packed_floats = 0;
  for (SequenceJob& job : jobs) {
    job.packed_offset = packed_floats;
    packed_floats += packed_size(job.shape) * kv_heads;
  }
  const at::Tensor packed = at::empty({packed_floats}, at::TensorOptions().dtype(c10::ScalarType::Float));
  float* packed_data = packed.mutable_data_ptr<float>();
  const auto packed_at = [&](const SequenceJob& job, std::int64_t kv_head) {
    return packed_data + job.packed_offset + kv_head * packed_size(job.shape);
  };
  at::parallel_for(0, static_cast<std::int64_t>(jobs.size()) * kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const SequenceJob& job = jobs[i / kv_heads];
      pack_head(job, i % kv_heads, bytes, packed_at(job, i % kv_heads));
    }
  });
  const std::vector<Task> tasks = tasks_of(jobs, heads);
  at::parallel_for(0, static_cast<std::int64_t>(tasks.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[i];
      const SequenceJob& job = jobs[task.job];
      AttentionShape shape = job.shape;
      if (job.mask.defined()) {
        shape.mask = job.mask.const_data_ptr<float>() + (job.mask.size(0) > 1 ? task.head * job.mask.stride(0) : 0);
        shape.mask_stride = job.mask.stride(1);
      }
      attend_rows(
          shape, element_at(q, job.first_row * q.stride(0) + task.head * d_head),
          packed_at(job, task.head / (heads / kv_heads)), task.begin, task.end,
          static_cast<char*>(out.mutable_data_ptr()) + (job.first_row * out.stride(0) + task.head * d_head) * bytes,
          job.log_sums == nullptr ? nullptr : job.log_sums + task.head, heads);
    }
  });
}

// What a run's first sequence reads; a cache is extended first.
KeyRows key_rows(const AttentionPlan& plan, const AttentionRun& run, int layer, const at::Tensor& k,
                 const at::Tensor& v) {
  if (run.cache == nullptr) return rows_side_by_side(k, v, run.key_begin, run.key_length);
  if (plan.cross) {
    const KvSequence::Cross& cross = run.cache->cross.at(layer);
    return rows_side_by_side(cross.k, cross.v, 0, cross.k.size(0));
  }
  run.cache->append(layer, k, v, run.begin, run.length);
  return rows_in_cache(*run.cache, layer, k.size(1) * k.size(2));
}

void add_queries(const AttentionPlan& plan, const AttentionRun& run, int layer, const KeyRows& keys,
                 std::vector<QueryJob>& jobs) {
  for (std::int64_t row = 0; row < run.length; ++row) {
    if (plan.cross) {
      jobs.push_back({run.begin + row, 0, run.cache->cross.at(layer).k.size(0), keys});
      continue;
    }
    const std::int64_t end = run.key_begin + run.key_length - (run.length - 1 - row);
    const std::int64_t first = run.window > 0 ? std::max<std::int64_t>(run.key_begin, end - run.window) : run.key_begin;
    jobs.push_back({run.begin + row, first, end - first, keys});
  }
}

// log_sums: per run (count, H, length) f32 for the backward pass, if not null.
at::Tensor attend_on_cpu(const at::Tensor& strided_q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionPlan& plan, int layer, double scale, tensor_list* log_sums) {
  const at::Tensor q = with_plain_rows(strided_q);  // (N, H, Dh)
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  std::vector<QueryJob> queries;
  std::vector<SequenceJob> jobs;
  for (const AttentionRun& run : plan.runs) {
    KeyRows keys = key_rows(plan, run, layer, k, v);
    if (run.rows_apart) {
      add_queries(plan, run, layer, keys, queries);
      continue;
    }
    float* sums = nullptr;
    if (log_sums != nullptr) {
      log_sums->push_back(at::empty({run.count, run.length, q.size(1)}, q.options().dtype(c10::ScalarType::Float)));
      sums = log_sums->back().mutable_data_ptr<float>();
    }
    const std::int64_t num_keys = plan.cross && run.cache != nullptr ? keys.page_size : run.key_length;
    for (std::int64_t i = 0; i < run.count; ++i) {
      if (i > 0) keys = rows_side_by_side(k, v, run.key_begin + i * run.key_length, run.key_length);
      const AttentionShape shape{element_of(q), run.length,    num_keys,
                                 q.size(2),     q.stride(0),   keys.k_stride,
                                 keys.v_stride, out.stride(0), static_cast<float>(scale),
                                 run.causal,    run.window};
      jobs.push_back({shape, run.begin + i * run.length, keys, run.mask.defined() ? run.mask[0] : at::Tensor(),
                      sums == nullptr ? nullptr : sums + i * run.length * q.size(1)});
    }
  }
  if (!jobs.empty()) attend_sequences(jobs, k.size(1), q, out);
  if (!queries.empty()) attend_queries(queries, k.size(1), q, scale, out);
  return out;
}

struct PlanHolder : torch::CustomClassHolder {
  explicit PlanHolder(std::shared_ptr<const AttentionPlan> held) : plan(std::move(held)) {}
  std::shared_ptr<const AttentionPlan> plan;
};

// Forward by our kernels, backward by libtorch's, which needs the same facts of the forward pass.
//
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
          queries(grad), queries(q), keys(k), keys(v), queries(out), saved[4 + i].transpose(1, 2), 0.0,
          is_triangle(run), mask_argument(run), ctx->saved_data["scale"].toDouble());
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
  if (!has_kernels(q) || trains_bias(*plan)) return attend_portable(q, k, v, *plan, layer, scale);
  const bool needs_grad = at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  if (!needs_grad) return attend_on_cpu(q, k, v, *plan, layer, scale, nullptr);
  SKEIN_CHECK(!plan->has_cache());
  return PackedAttention::apply(q, k, v, plan, scale);
}

}  // namespace skein
