// For tests: every method written down as plainly as possible, in f64 over whole tensors with sorting. It shares with
// the fast path only the random numbers and the rounding to bf16 and f16.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "skein/merge/kernels/select.h"
#include "skein/merge/methods/test_merge.h"
#include "skein/merge/random.h"

namespace skein::merge::naive {

using Vector = std::vector<double>;

inline double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
inline double norm(const Vector& a) { return std::sqrt(dot(a, a)); }
inline double l1(const Vector& a) {
  double sum = 0;
  for (const double x : a) sum += std::abs(x);
  return sum;
}
inline Vector scaled(const Vector& a, double s) {
  Vector b = a;
  for (double& x : b) x *= s;
  return b;
}
inline Vector sum(const Vector& a, const Vector& b) {
  Vector c = a;
  for (std::size_t i = 0; i < c.size(); ++i) c[i] += b[i];
  return c;
}
inline Vector to_f64(const std::vector<float>& x) { return Vector(x.begin(), x.end()); }

struct Input {
  const TestMerge& merge;
  const TestTensor& tensor;
  MethodParameters parameters;
  std::size_t num_models, n;
  std::int64_t row;
  std::vector<Vector> x;       // models
  Vector base;                 // zeros without one
  std::vector<Vector> deltas;  // from base, rounded to f32 as the fast path's

  Input(const TestMerge& m, const TestTensor& t)
      : merge(m),
        tensor(t),
        parameters(m.parameters(static_cast<int>(t.models.size()))),
        num_models(t.models.size()),
        n(t.models[0].size()),
        row(t.shape.empty() ? 1 : t.shape.back()) {
    base = t.base.empty() ? Vector(n) : to_f64(t.base);
    for (const auto& model : t.models) {
      x.push_back(to_f64(model));
      Vector delta;
      for (std::size_t i = 0; i < n; ++i) delta.push_back(model[i] - (t.base.empty() ? 0.0F : t.base[i]));
      deltas.push_back(delta);
    }
  }
  double number(const char* name) const { return parameters.number(name); }
  double number(const char* name, std::size_t m) const { return parameters.number(name, static_cast<int>(m)); }
};

// ---- sparsifiers ----------------------------------------------------------------------------------------------------

// Indices by descending magnitude as rounded to the type, the lower index first.
inline std::vector<std::size_t> by_magnitude(const Vector& delta, DType type) {
  const auto key = [&](std::size_t i) {
    const auto bits = std::bit_cast<std::uint32_t>(std::abs(static_cast<float>(delta[i])));
    return type == DType::kF32 ? bits : magnitude_key(type, bits);
  };
  std::vector<std::size_t> order(delta.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) > key(b); });
  return order;
}

inline Vector keep_ranks(const Vector& delta, DType type, std::size_t skip, std::size_t take) {
  const auto order = by_magnitude(delta, type);
  Vector kept(delta.size());
  for (std::size_t r = skip; r < std::min(skip + take, order.size()); ++r) kept[order[r]] = delta[order[r]];
  return kept;
}

inline Vector restored(const Vector& before, const Vector& after, bool rescale) {
  const double a = l1(before), b = l1(after);
  return !rescale || a < 1e-7 || b < 1e-7 ? after : scaled(after, a / b);
}

inline Vector sparse(const Input& in, std::size_t m) {
  const Vector& delta = in.deltas[m];
  const std::string& method = in.merge.method;
  if (method == "task_arithmetic") return delta;
  const double density = in.number("density", m);
  if (density >= 1) return delta;
  const auto size = static_cast<double>(in.n);
  const StreamKey key = stream_key(in.merge.seed, "tensor.0");
  const bool expectation = in.parameters.has("rescale_norm") && in.parameters.choice("rescale_norm") == "expectation";
  Vector kept(in.n);
  if (method == "ties") {
    kept = keep_ranks(delta, in.tensor.dtype, 0, std::max<std::size_t>(1, static_cast<std::size_t>(density * size)));
    if (density <= 0) kept.assign(in.n, 0);
  } else if (method.starts_with("dare")) {
    for (std::size_t i = 0; i < in.n; ++i) {
      const auto number = random_number(key, static_cast<int>(m), static_cast<std::int64_t>(i));
      if (number < mask_threshold(density)) kept[i] = delta[i];
    }
    if (expectation) return scaled(kept, in.parameters.flag("rescale") ? 1 / density : 1);
  } else if (method.starts_with("breadcrumbs")) {
    const auto take = static_cast<std::size_t>(density * size);
    const auto top = static_cast<std::size_t>(in.number("gamma", m) * size);
    kept = keep_ranks(delta, in.tensor.dtype, std::min(top, in.n - take), take);
  } else {
    const double epsilon = in.number("epsilon", m);
    for (std::size_t start = 0; start < in.n; start += static_cast<std::size_t>(in.row)) {
      const Vector row(delta.begin() + static_cast<std::ptrdiff_t>(start),
                       delta.begin() + static_cast<std::ptrdiff_t>(start) + in.row);
      // Ascending, the lower index first.
      const auto magnitude = [&](std::size_t i) {
        const auto bits = std::bit_cast<std::uint32_t>(std::abs(static_cast<float>(row[i])));
        return in.tensor.dtype == DType::kF32 ? bits : magnitude_key(in.tensor.dtype, bits);
      };
      std::vector<std::size_t> order(row.size());
      std::iota(order.begin(), order.end(), 0U);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return magnitude(a) < magnitude(b); });
      for (std::size_t rank = 0; rank < row.size(); ++rank) {
        const double p =
            row.size() == 1
                ? density
                : density - epsilon + static_cast<double>(rank) * (2 * epsilon / static_cast<double>(row.size() - 1));
        const std::size_t i = start + order[rank];
        const auto number = random_number(key, static_cast<int>(m), static_cast<std::int64_t>(i));
        if (number < mask_threshold(p)) kept[i] = delta[i] * (expectation ? 1 / p : 1);
      }
    }
    if (expectation) return kept;
  }
  return restored(delta, kept, in.parameters.flag("rescale"));
}

// ---- methods on task vectors ----------------------------------------------------------------------------------------

inline Vector task(const Input& in) {
  std::vector<Vector> kept;
  for (std::size_t m = 0; m < in.num_models; ++m) kept.push_back(sparse(in, m));
  const bool elects = in.parameters.has("elect");
  Vector out = in.base;
  for (std::size_t i = 0; i < in.n; ++i) {
    double votes = 0, all_weights = 0;
    for (std::size_t m = 0; m < in.num_models; ++m) {
      const double w = in.number("weight", m), d = kept[m][i];
      const std::string_view elect = elects ? in.parameters.choice("elect") : "";
      votes += elect == "mass" ? d : elect == "count" ? (d > 0) - (d < 0) : w * d;
      all_weights += w;
    }
    double mixed = 0, divisor = 0;
    for (std::size_t m = 0; m < in.num_models; ++m) {
      const double w = in.number("weight", m), d = kept[m][i];
      const bool unweighted =
          elects && (in.parameters.choice("elect") == "mass" || in.parameters.choice("elect") == "count");
      const double vote = unweighted ? d : w * d;
      if (elects && !(votes >= 0 ? vote > 0 : vote < 0)) continue;
      mixed += w * d;
      divisor += elects && in.parameters.choice("denominator") == "count" ? 1 : w;
    }
    if (!elects) divisor = std::abs(all_weights) < 1e-8 ? 1 : all_weights;
    if (divisor == 0) divisor = 1;
    if (in.parameters.flag("normalize")) mixed /= divisor;
    out[i] += in.number("lambda") * mixed;
  }
  return out;
}

// ---- on spheres -----------------------------------------------------------------------------------------------------

inline Vector slerp_vectors(double t, const Vector& a, const Vector& b, bool nuslerp) {
  const double least = nuslerp ? 1e-7 : 1e-8;
  const double na = norm(a) > least ? norm(a)
                    : nuslerp       ? least
                                    : 1,
               nb = norm(b) > least ? norm(b)
                    : nuslerp       ? least
                                    : 1;
  const double c = std::clamp(dot(a, b) / na / nb, -1.0, 1.0);
  if (nuslerp ? 1 - c * c <= 1e-16 : std::abs(c) > 0.9995) return sum(scaled(a, 1 - t), scaled(b, t));
  const double theta = std::acos(c);
  return sum(scaled(a, std::sin((1 - t) * theta) / std::sin(theta)), scaled(b, std::sin(t * theta) / std::sin(theta)));
}

// body(indices) for every vector: all, rows, or along the first axis.
template <class Body>
void for_each_vector(const Input& in, bool flat, bool first_axis, const Body& body) {
  const auto row = static_cast<std::size_t>(in.row);
  std::vector<std::size_t> indices;
  if (flat || in.tensor.shape.size() < 2) {
    indices.resize(in.n);
    std::iota(indices.begin(), indices.end(), 0U);
    body(indices);
  } else if (!first_axis) {
    for (std::size_t start = 0; start < in.n; start += row) {
      indices.resize(row);
      std::iota(indices.begin(), indices.end(), start);
      body(indices);
    }
  } else {
    const std::size_t rest = in.n / static_cast<std::size_t>(in.tensor.shape[0]);
    for (std::size_t c = 0; c < rest; ++c) {
      indices.clear();
      for (std::size_t i = c; i < in.n; i += rest) indices.push_back(i);
      body(indices);
    }
  }
}
inline Vector picked(const Vector& x, const std::vector<std::size_t>& indices) {
  Vector y;
  for (const std::size_t i : indices) y.push_back(x[i]);
  return y;
}

inline Vector nuslerp(const Input& in) {
  const double a = in.number("weight", 0), b = in.number("weight", 1);
  const double t = std::abs(a + b) < 1e-6 ? 0.5 : b / (a + b);
  Vector out = in.base;
  for_each_vector(
      in, in.parameters.flag("nuslerp_flatten"), in.parameters.flag("nuslerp_row_wise"), [&](const auto& indices) {
        const Vector mixed = slerp_vectors(t, picked(in.deltas[0], indices), picked(in.deltas[1], indices), true);
        for (std::size_t i = 0; i < indices.size(); ++i) out[indices[i]] += mixed[i];
      });
  return out;
}

inline Vector multislerp(const Input& in) {
  if (in.num_models == 1) return in.x[0];
  const double eps = in.number("eps");
  Vector weights;
  for (std::size_t m = 0; m < in.num_models; ++m) weights.push_back(in.number("weight", m));
  if (in.parameters.flag("normalize_weights")) {
    weights = scaled(weights, 1 / std::accumulate(weights.begin(), weights.end(), 0.0));
  }
  std::vector<Vector> units;
  Vector mean(in.n), tangent(in.n);
  double average = 0;
  for (std::size_t m = 0; m < in.num_models; ++m) {
    units.push_back(scaled(in.deltas[m], 1 / (norm(in.deltas[m]) + eps)));
    mean = sum(mean, scaled(units[m], weights[m]));
    average += weights[m] * norm(in.deltas[m]);
  }
  mean = scaled(mean, 1 / norm(mean));
  for (std::size_t m = 0; m < in.num_models; ++m) {
    const Vector t = sum(units[m], scaled(mean, -dot(units[m], mean)));
    tangent = sum(tangent, scaled(t, weights[m]));
  }
  const double length = norm(tangent) + eps;
  const Vector result = sum(scaled(mean, std::cos(length)), scaled(tangent, std::sin(length) / length));
  return sum(in.base, scaled(result, average));
}

inline Vector karcher(const Input& in) {
  const double tol = in.number("tol");
  std::vector<Vector> units;
  double average = 0;
  for (const Vector& x : in.x) {
    average += norm(x) / static_cast<double>(in.num_models);
    if (norm(x) > tol) units.push_back(scaled(x, 1 / norm(x)));
  }
  if (units.empty()) return Vector(in.n);
  const double alpha = 1.0 / static_cast<double>(units.size());
  Vector mean(in.n);
  for (const Vector& u : units) mean = sum(mean, scaled(u, alpha));
  mean = norm(mean) < tol ? units[0] : scaled(mean, 1 / norm(mean));
  for (int round = 0; round < static_cast<int>(in.number("max_iter")); ++round) {
    Vector tangent(in.n);
    for (const Vector& u : units) {
      const double c = std::clamp(dot(mean, u), -1.0, 1.0), theta = std::acos(c);
      if (theta < tol) continue;
      tangent = sum(tangent, scaled(sum(u, scaled(mean, -c)), alpha * theta / std::sin(theta)));
    }
    const double length = norm(tangent);
    if (length < tol) break;
    mean = sum(scaled(mean, std::cos(length)), scaled(tangent, std::sin(length) / length));
    mean = scaled(mean, 1 / norm(mean));
  }
  return scaled(mean, average);
}

inline Vector model_stock(const Input& in) {
  Vector out = in.base;
  for_each_vector(in, !in.parameters.flag("filter_wise"), false, [&](const auto& indices) {
    double cosines = 0;
    Vector mean(indices.size());
    for (std::size_t a = 0; a < in.num_models; ++a) {
      const Vector da = picked(in.deltas[a], indices);
      mean = sum(mean, scaled(da, 1.0 / static_cast<double>(in.num_models)));
      for (std::size_t b = a + 1; b < in.num_models; ++b) {
        const Vector db = picked(in.deltas[b], indices);
        cosines += std::clamp(dot(da, db) / std::max(norm(da) * norm(db), 1e-6), -1.0, 1.0);
      }
    }
    const auto count = static_cast<double>(in.num_models);
    const double c = cosines / (count * (count - 1) / 2), divisor = 1 + (count - 1) * c;
    const double t = std::abs(divisor) < 1e-6 ? 0 : count * c / divisor;
    for (std::size_t i = 0; i < indices.size(); ++i) out[indices[i]] += t * mean[i];
  });
  return out;
}

// ---- the rest -------------------------------------------------------------------------------------------------------

inline Vector sce(const Input& in) {
  std::vector<Vector> kept = in.deltas;
  const double topk = in.number("select_topk");
  if (topk < 1) {
    Vector variance;
    std::size_t varying = 0;
    for (std::size_t i = 0; i < in.n; ++i) {
      // In f32 and in this order: what is selected must not hang on a last bit.
      float mean = 0, squares = 0;
      for (const Vector& d : in.deltas) mean += static_cast<float>(d[i]);
      mean /= static_cast<float>(in.num_models);
      for (const Vector& d : in.deltas) {
        const float off = static_cast<float>(d[i]) - mean;
        squares += off * off;
      }
      variance.push_back(squares / static_cast<float>(in.num_models));
      varying += variance.back() != 0 ? 1 : 0;
    }
    const Vector selected =
        keep_ranks(variance, DType::kF32, 0, static_cast<std::size_t>(static_cast<double>(varying) * topk));
    for (Vector& d : kept) {
      for (std::size_t i = 0; i < in.n; ++i) d[i] = selected[i] != 0 ? d[i] : 0;
    }
  }
  Vector weights;
  for (const Vector& d : kept) weights.push_back(dot(d, d) / static_cast<double>(in.n));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w = total < 1e-6 ? 1.0 / static_cast<double>(in.num_models) : w / total;
  Vector out = in.base;
  for (std::size_t i = 0; i < in.n; ++i) {
    double votes = 0, mixed = 0, divisor = 0;
    for (const Vector& d : kept) votes += d[i];
    for (std::size_t m = 0; m < in.num_models; ++m) {
      if (!(votes >= 0 ? kept[m][i] > 0 : kept[m][i] < 0)) continue;
      mixed += weights[m] * kept[m][i];
      divisor += weights[m];
    }
    out[i] += mixed / std::max(divisor, 1e-6);
  }
  return out;
}

inline Vector arcee_fusion(const Input& in) {
  std::vector<float> importance(in.n);
  const auto softmax = [&](const Vector& x, std::size_t start, std::size_t i) {
    double total = 0, largest = -INFINITY;
    for (std::size_t j = start; j < start + static_cast<std::size_t>(in.row); ++j) largest = std::max(largest, x[j]);
    for (std::size_t j = start; j < start + static_cast<std::size_t>(in.row); ++j) total += std::exp(x[j] - largest);
    return std::exp(x[i] - largest) / total + 1e-8;
  };
  for (std::size_t start = 0; start < in.n; start += static_cast<std::size_t>(in.row)) {
    double divergence = 0;
    for (std::size_t i = start; i < start + static_cast<std::size_t>(in.row); ++i) {
      const double p = softmax(in.x[0], start, i);
      divergence += p * std::log(p / softmax(in.base, start, i));
    }
    for (std::size_t i = start; i < start + static_cast<std::size_t>(in.row); ++i) {
      importance[i] = static_cast<float>(std::abs(in.deltas[0][i])) * static_cast<float>(std::max(divergence, 0.0));
    }
  }
  std::vector<float> sorted = importance;
  std::sort(sorted.begin(), sorted.end());
  const auto quantile = [&](double q) { return sorted[static_cast<std::size_t>(q * static_cast<double>(in.n - 1))]; };
  const float threshold = quantile(0.5) + 1.5F * (quantile(0.75) - quantile(0.25));
  Vector out = in.base;
  for (std::size_t i = 0; i < in.n; ++i) out[i] += importance[i] >= threshold ? in.deltas[0][i] : 0;
  return out;
}

inline Vector ram(const Input& in, bool plus) {
  const double epsilon = static_cast<float>(in.number("epsilon"));
  std::vector<double> lone(in.num_models), shared(in.num_models), factors(in.num_models, 1.0);
  const auto count_at = [&](std::size_t i) {
    int count = 0;
    for (const Vector& d : in.deltas) count += std::abs(d[i]) > epsilon ? 1 : 0;
    return count;
  };
  for (std::size_t i = 0; i < in.n; ++i) {
    for (std::size_t m = 0; m < in.num_models; ++m) {
      if (std::abs(in.deltas[m][i]) > epsilon) ++(count_at(i) > 1 ? shared : lone)[m];
    }
  }
  for (std::size_t m = 0; plus && m < in.num_models; ++m) {
    const double rho = shared[m] / std::max(lone[m], in.number("epsilon"));
    factors[m] = 1 + in.number("r") * std::clamp(rho, 0.0, in.number("alpha"));
  }
  Vector out = in.base;
  for (std::size_t i = 0; i < in.n; ++i) {
    for (std::size_t m = 0; m < in.num_models; ++m) {
      if (std::abs(in.deltas[m][i]) <= epsilon) continue;
      out[i] += count_at(i) == 1 ? factors[m] * in.deltas[m][i] : in.deltas[m][i] / count_at(i);
    }
  }
  return out;
}

inline Vector merged(const TestMerge& merge, const TestTensor& tensor) {
  const Input in(merge, tensor);
  const std::string& method = merge.method;
  Vector out(in.n);
  if (method == "linear") {
    double weights = 0;
    for (std::size_t m = 0; m < in.num_models; ++m) {
      out = sum(out, scaled(in.x[m], in.number("weight", m)));
      weights += in.number("weight", m);
    }
    return in.parameters.flag("normalize") ? scaled(out, 1 / weights) : out;
  }
  if (method == "passthrough") return scaled(in.x[0], in.parameters.has("scale", 0) ? in.number("scale", 0) : 1);
  if (method == "slerp") return slerp_vectors(in.number("t"), in.base, in.x[0], false);
  if (method == "nuslerp") return nuslerp(in);
  if (method == "multislerp") return multislerp(in);
  if (method == "karcher") return karcher(in);
  if (method == "model_stock") return model_stock(in);
  if (method == "sce") return sce(in);
  if (method == "arcee_fusion") return arcee_fusion(in);
  if (method == "ram" || method == "ramplus_tl") return ram(in, method != "ram");
  if (method == "nearswap") {
    for (std::size_t i = 0; i < in.n; ++i) {
      const double gap = std::max(std::abs(in.base[i] - in.x[0][i]), 1e-6);
      const double w = std::clamp(in.number("t") / gap, 0.0, 1.0);
      out[i] = w * in.x[0][i] + (1 - w) * in.base[i];
    }
    return out;
  }
  return task(in);
}

}  // namespace skein::merge::naive
