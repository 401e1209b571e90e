#include "skein/experts/extract.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/progress.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

at::Tensor load_finite(const BaseModel& model, const std::string& name, const ComputeOptions& compute) {
  at::Tensor tensor = load_tensor(*model.weights, name, compute);
  if (!at::isfinite(tensor).all().item<bool>()) {
    throw Failure({concat(model.path, ": ", name,
                          " holds NaN or infinite values; the file is damaged or its training diverged")});
  }
  return tensor;
}

double relative(const at::Tensor& part, const at::Tensor& whole) {
  const double whole_norm = whole.norm().item<double>();
  return whole_norm > 0 ? part.norm().item<double>() / whole_norm : 0;
}

// Columns made orthonormal. The QR of a rank-deficient matrix still has orthonormal columns, which is all that is
// needed.
at::Tensor orthonormal(const at::Tensor& columns) { return std::get<0>(at::linalg_qr(columns, "reduced")); }

void check_same_model(const BaseModel& base, const BaseModel& tuned) {
  for (const auto& info : base.weights->tensors()) {
    const TensorInfo* twin = tuned.weights->find(info.name);
    if (twin != nullptr && twin->shape != info.shape) {
      throw Failure(
          {concat(tuned.path, ": ", info.name, " has shape ", to_string(twin->shape), "; ", base.path, " has ",
                  to_string(info.shape), "; this is a fine-tune of another base or with a resized vocabulary")});
    }
  }
}

}  // namespace

LeadingTriples randomized_svd(const at::Tensor& matrix, std::int64_t rank, const ExtractOptions& options) {
  const std::int64_t m = matrix.size(0), n = matrix.size(1);
  const std::int64_t kept = std::min({rank, m, n});
  const std::int64_t sampled = std::min({kept + options.oversampling, m, n});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  const at::Tensor omega =
      at::randn({n, sampled}, generator, at::TensorOptions().dtype(at::kFloat)).to(matrix.device());
  at::Tensor q = orthonormal(matrix.matmul(omega));  // (m, sampled)
  for (std::int64_t i = 0; i < options.power_iterations; ++i) {
    q = orthonormal(matrix.matmul(orthonormal(matrix.t().matmul(q))));
  }
  const auto [u_small, sigma, vh] = at::linalg_svd(q.t().matmul(matrix), /*full_matrices=*/false);
  return {q.matmul(u_small).narrow(1, 0, kept).contiguous(), sigma.narrow(0, 0, kept).contiguous(),
          vh.narrow(0, 0, kept).t().contiguous()};
}

Extraction extract_lora(const BaseModel& base, const BaseModel& tuned, const ExtractOptions& options,
                        const ComputeOptions& compute) {
  c10::InferenceMode no_gradients;
  check_same_model(base, tuned);
  ComputeOptions exact = compute;
  exact.dtype = at::kFloat;

  std::map<std::string, int> slot_of_tensor;
  const auto slots = slot_names(base.config);
  for (std::size_t i = 0; i < slots.size(); ++i) slot_of_tensor[slots[i].module + ".weight"] = static_cast<int>(i);

  Extraction result;
  result.adapter.path = tuned.path;
  result.adapter.config.rank = options.rank;
  result.adapter.config.alpha = static_cast<double>(options.rank);
  result.adapter.config.base_model_name_or_path = base.path;
  result.adapter.config.task_type = base.config.is_encoder_decoder() ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";

  const auto names = tensor_names(base.config);
  Progress progress("extract", static_cast<std::int64_t>(names.size()), "tensors");
  std::int64_t done = 0;
  for (const auto& tensor : names) {
    if (interrupted()) throw Failure({"extract: stopped by a signal; nothing was written", ErrorKind::kInterrupted});
    progress.update(done++, tensor.name);
    if (base.weights->find(tensor.name) == nullptr || tuned.weights->find(tensor.name) == nullptr)
      continue;  // tied head
    const at::Tensor before = load_finite(base, tensor.name, exact);
    const at::Tensor delta = load_finite(tuned, tensor.name, exact) - before;
    const auto slot = slot_of_tensor.find(tensor.name);
    if (slot == slot_of_tensor.end()) {
      const double change = relative(delta, before);
      if (change > 0) result.left_out.emplace_back(tensor.name, change);
      continue;
    }
    const auto [u, sigma, v] = randomized_svd(delta, options.rank, options);
    const at::Tensor root = sigma.sqrt();
    const at::Tensor a = (v * root).t().contiguous();  // (R, D_in)
    const at::Tensor b = (u * root).contiguous();      // (D_out, R)
    const std::int64_t rank = sigma.size(0);
    const std::string& module = slots[slot->second].module;
    result.modules.push_back({module, relative(delta - b.matmul(a), delta), relative(delta, before)});
    result.adapter.modules.push_back({slot->second, rank, 1.0, floats_of(a), floats_of(b)});
    if (rank != options.rank) {
      result.adapter.config.rank_pattern.emplace_back(module, rank);
      result.adapter.config.alpha_pattern.emplace_back(module, static_cast<double>(rank));
    }
    if (std::find(result.adapter.config.target_modules.begin(), result.adapter.config.target_modules.end(),
                  slots[slot->second].kind) == result.adapter.config.target_modules.end()) {
      result.adapter.config.target_modules.push_back(slots[slot->second].kind);
    }
  }
  std::sort(result.adapter.modules.begin(), result.adapter.modules.end(),
            [](const LoraTensors& left, const LoraTensors& right) { return left.slot_idx < right.slot_idx; });
  return result;
}

}  // namespace skein
