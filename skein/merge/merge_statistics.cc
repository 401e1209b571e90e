#include "skein/merge/merge_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <sstream>

#include "skein/io/convert_elements.h"
#include "skein/merge/layer_name.h"

namespace skein::merge {
namespace {

constexpr std::size_t kPiece = 2048;  // elements at a time: all models' stay in the first-level cache

std::size_t num_pairs(std::size_t num_models) { return num_models * (num_models - 1) / 2; }

TensorStatistics empty_statistics(std::size_t num_models) {
  TensorStatistics statistics;
  statistics.squares.assign(num_models, 0);
  statistics.products.assign(num_pairs(num_models), 0);
  statistics.num_nonzero.assign(num_models, 0);
  return statistics;
}

using Floats = std::array<float, kPiece>;

// `count` elements from `first` of one piece, as floats; zeros behind them, which add to nothing. So every loop below
// runs to a constant, which is what the compiler turns into vectors.
void widen(const Piece& piece, std::int64_t first, std::int64_t count, Floats& out) {
  convert_to_f32(piece.dtype, piece.data + first * dtype_size(piece.dtype), count, out.data());
  std::fill(out.begin() + count, out.end(), 0.0F);
}

void add_signs(const std::vector<Floats>& deltas, TensorStatistics& statistics) {
  std::array<std::int32_t, kPiece> positive{}, negative{};
  for (std::size_t m = 0; m < deltas.size(); ++m) {
    std::int32_t nonzero = 0;
    for (std::size_t i = 0; i < kPiece; ++i) {
      positive[i] += deltas[m][i] > 0 ? 1 : 0;
      negative[i] += deltas[m][i] < 0 ? 1 : 0;
      nonzero += deltas[m][i] != 0 ? 1 : 0;
    }
    statistics.num_nonzero[m] += nonzero;
  }
  std::int32_t shared = 0, conflicts = 0;
  for (std::size_t i = 0; i < kPiece; ++i) {
    shared += positive[i] + negative[i] > 1 ? 1 : 0;
    conflicts += (positive[i] > 0 ? 1 : 0) & (negative[i] > 0 ? 1 : 0);
  }
  statistics.num_shared += shared;
  statistics.num_conflicts += conflicts;
}

// In f64, in eight sums that are added in order.
double product(const Floats& a, const Floats& b) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  for (std::size_t i = 0; i < kPiece; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  double sum = 0;
  for (const double lane : sums) sum += lane;
  return sum;
}

void add_sums(const std::vector<Floats>& deltas, TensorStatistics& statistics) {
  std::size_t pair = 0;
  for (std::size_t a = 0; a < deltas.size(); ++a) {
    statistics.squares[a] += product(deltas[a], deltas[a]);
    for (std::size_t b = a + 1; b < deltas.size(); ++b) statistics.products[pair++] += product(deltas[a], deltas[b]);
  }
}

Json json_of(const TensorStatistics& statistics) {
  return {{"elements", statistics.num_elements},   {"squares", statistics.squares},
          {"products", statistics.products},       {"nonzero", statistics.num_nonzero},
          {"conflicts", statistics.num_conflicts}, {"shared", statistics.num_shared},
          {"changed", statistics.num_changed},     {"output_square", statistics.output_square}};
}

TensorStatistics statistics_of(const Json& json) {
  TensorStatistics statistics;
  statistics.num_elements = json["elements"];
  statistics.squares = json["squares"].get<std::vector<double>>();
  statistics.products = json["products"].get<std::vector<double>>();
  statistics.num_nonzero = json["nonzero"].get<std::vector<double>>();
  statistics.num_conflicts = json["conflicts"];
  statistics.num_shared = json["shared"];
  statistics.num_changed = json["changed"];
  statistics.output_square = json["output_square"];
  return statistics;
}

// A share of elements, or null of none.
Json share(double part, double whole) { return whole > 0 ? Json(part / whole) : Json(); }

// What a reader wants of the sums. A cosine with a vector of zeros is null.
Json readable(const TensorStatistics& statistics) {
  const auto elements = static_cast<double>(statistics.num_elements);
  Json norms = Json::array(), nonzero = Json::array(), cosines = Json::array();
  for (const double square : statistics.squares) norms.push_back(std::sqrt(square));
  for (const double count : statistics.num_nonzero) nonzero.push_back(share(count, elements));
  std::size_t pair = 0;
  for (std::size_t a = 0; a < statistics.squares.size(); ++a) {
    for (std::size_t b = a + 1; b < statistics.squares.size(); ++b, ++pair) {
      const double norm = std::sqrt(statistics.squares[a]) * std::sqrt(statistics.squares[b]);
      cosines.push_back(norm > 0 ? Json(std::clamp(statistics.products[pair] / norm, -1.0, 1.0)) : Json());
    }
  }
  return {{"elements", statistics.num_elements},
          {"norms", std::move(norms)},
          {"nonzero", std::move(nonzero)},
          {"cosines", std::move(cosines)},
          {"sign_conflicts", share(statistics.num_conflicts, statistics.num_shared)},
          {"kept", share(statistics.num_changed, elements)},
          {"output_norm", std::sqrt(statistics.output_square)}};
}

}  // namespace

void TensorStatistics::add(const TensorStatistics& other) {
  if (squares.empty()) {
    *this = other;
    return;
  }
  if (other.squares.size() != squares.size()) return;  // of another number of models: no sum has a meaning
  num_elements += other.num_elements;
  for (std::size_t i = 0; i < squares.size(); ++i) squares[i] += other.squares[i];
  for (std::size_t i = 0; i < products.size(); ++i) products[i] += other.products[i];
  for (std::size_t i = 0; i < num_nonzero.size(); ++i) num_nonzero[i] += other.num_nonzero[i];
  num_conflicts += other.num_conflicts;
  num_shared += other.num_shared;
  num_changed += other.num_changed;
  output_square += other.output_square;
}

StatisticsObserver::StatisticsObserver(const Plan& plan) : plan_(plan), blocks_(plan.tensors.size()) {}

void StatisticsObserver::observe(std::size_t tensor_idx, const Block& block, const Output& output, int) {
  if (plan_.tensors[tensor_idx].is_copy || block.models.empty()) return;
  TensorStatistics statistics = empty_statistics(block.models.size());
  statistics.num_elements = block.count;
  std::vector<Floats> deltas(block.models.size());
  Floats base, result;
  const Piece& reference = block.base.data != nullptr ? block.base : block.models[0];
  constexpr auto kStep = static_cast<std::int64_t>(kPiece);
  for (std::int64_t first = 0; first < block.count; first += kStep) {
    const std::int64_t count = std::min(kStep, block.count - first);
    widen(reference, first, count, base);
    widen({output.data, output.dtype}, first, count, result);
    for (std::size_t m = 0; m < deltas.size(); ++m) {
      widen(block.models[m], first, count, deltas[m]);
      if (block.base.data == nullptr) continue;
      for (std::size_t i = 0; i < kPiece; ++i) deltas[m][i] -= base[i];
    }
    std::int32_t changed = 0;
    for (std::size_t i = 0; i < kPiece; ++i) {
      result[i] -= base[i];
      changed += result[i] != 0 ? 1 : 0;
    }
    statistics.num_changed += changed;
    statistics.output_square += product(result, result);
    add_signs(deltas, statistics);
    add_sums(deltas, statistics);
  }
  const std::lock_guard lock(mutex_);
  auto& blocks = blocks_[tensor_idx];
  if (blocks.size() <= static_cast<std::size_t>(block.index)) blocks.resize(static_cast<std::size_t>(block.index) + 1);
  blocks[static_cast<std::size_t>(block.index)] = std::move(statistics);
}

std::string StatisticsObserver::lines() const {
  const std::lock_guard lock(mutex_);
  std::string lines;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i].empty()) continue;
    TensorStatistics sum;
    for (const auto& block : blocks_[i]) sum.add(block);
    Json line = json_of(sum);
    line["tensor"] = i;
    lines += line.dump() + "\n";
  }
  return lines;
}

Result<Json> statistics_json(const Plan& plan, const std::string& lines) {
  std::map<std::size_t, TensorStatistics> tensors;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) {
    SKEIN_ASSIGN(const Json json, parse_json(line, "statistics"));
    tensors[json["tensor"].get<std::size_t>()] = statistics_of(json);
  }
  Json list = Json::array(), models = Json::array();
  TensorStatistics whole;
  std::map<std::int64_t, TensorStatistics> layers;
  for (const auto& [i, statistics] : tensors) {
    Json entry = readable(statistics);
    entry["name"] = plan.tensors[i].name;
    if (const auto layer = split_layer_name(plan.tensors[i].name)) layers[layer->layer].add(statistics);
    whole.add(statistics);
    list.push_back(std::move(entry));
  }
  // The models that task vectors are of; a merge whose tensors have different ones names those of the first.
  for (const auto& tensor : plan.tensors) {
    if (tensor.is_copy) continue;
    for (const int source : tensor.model_sources)
      models.push_back(plan.sources[static_cast<std::size_t>(source)]->ref.text());
    break;
  }
  Json by_layer = Json::array();
  for (const auto& [layer, statistics] : layers) {
    Json entry = readable(statistics);
    entry["layer"] = layer;
    by_layer.push_back(std::move(entry));
  }
  const bool has_base = plan.recipe->base_model.has_value() && plan.method->base != BaseRole::kNone;
  return Json{{"format", "skein-merge-stats-1"},
              {"method", plan.method->name},
              {"base", has_base ? Json(plan.recipe->base_model->text()) : Json()},
              {"models", std::move(models)},
              {"whole", readable(whole)},
              {"layers", std::move(by_layer)},
              {"tensors", std::move(list)}};
}

}  // namespace skein::merge
