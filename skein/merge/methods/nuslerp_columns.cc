#include "skein/merge/methods/nuslerp_columns.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "skein/base/thread_pool.h"
#include "skein/merge/kernels/tiles.h"

namespace skein::merge {

std::pair<double, double> nuslerp_coefficients(double t, double aa, double ab, double bb) {
  const double cosine = std::clamp(ab / (std::max(std::sqrt(aa), 1e-7) * std::max(std::sqrt(bb), 1e-7)), -1.0, 1.0);
  if (1 - cosine * cosine <= 1e-16) return {1 - t, t};  // nearly parallel: a straight line
  const double theta = std::acos(cosine), sine = std::sin(theta);
  return {std::sin((1 - t) * theta) / sine, std::sin(t * theta) / sine};
}

namespace {

class ColumnTensor final : public TensorMerge {
 public:
  ColumnTensor(const TensorJob& job, double t) : job_(job), t_(t) {}
  Pieces pieces() const override { return Pieces::kTensor; }

  void apply(const Block& block, const Output& output, int) override {
    const std::int64_t rows = job_.shape[0], columns = block.count / rows;
    parallel_for(columns, kTile, [&](std::int64_t begin, std::int64_t end) {
      merge_columns(block, output, rows, columns, begin, end - begin);
    });
  }

 private:
  struct Tiles {
    float base[kTile], a[kTile], b[kTile];
  };

  void load(const Block& block, std::int64_t offset, std::int64_t n, Tiles& tiles) const {
    if (job_.has_base) {
      kernels_.load(block.base, offset, n, tiles.base);
      kernels_.load_delta(block.models[0], offset, n, tiles.base, tiles.a);
      kernels_.load_delta(block.models[1], offset, n, tiles.base, tiles.b);
    } else {
      kernels_.load(block.models[0], offset, n, tiles.a);
      kernels_.load(block.models[1], offset, n, tiles.b);
    }
  }

  void merge_columns(const Block& block, const Output& output, std::int64_t rows, std::int64_t columns,
                     std::int64_t first, std::int64_t n) const {
    Tiles tiles;
    std::vector<double> aa(static_cast<std::size_t>(n)), ab(aa), bb(aa);
    for (std::int64_t row = 0; row < rows; ++row) {
      load(block, row * columns + first, n, tiles);
      for (std::size_t i = 0; i < aa.size(); ++i) {
        const double a = tiles.a[i], b = tiles.b[i];
        aa[i] += a * a;
        ab[i] += a * b;
        bb[i] += b * b;
      }
    }
    std::vector<float> of_a, of_b;
    for (std::size_t i = 0; i < aa.size(); ++i) {
      const auto [a, b] = nuslerp_coefficients(t_, aa[i], ab[i], bb[i]);
      of_a.push_back(static_cast<float>(a));
      of_b.push_back(static_cast<float>(b));
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      load(block, row * columns + first, n, tiles);
      for (std::size_t i = 0; i < aa.size(); ++i) {
        const float mixed = of_a[i] * tiles.a[i] + of_b[i] * tiles.b[i];
        tiles.a[i] = job_.has_base ? tiles.base[i] + mixed : mixed;
      }
      kernels_.store(tiles.a, n, output, row * columns + first);
    }
  }

  const TensorJob& job_;
  double t_;
  TileKernels kernels_ = tile_kernels();
};

}  // namespace

Result<std::unique_ptr<TensorMerge>> nuslerp_along_first_axis(const TensorJob& job, double t) {
  return std::unique_ptr<TensorMerge>(std::make_unique<ColumnTensor>(job, t));
}

}  // namespace skein::merge
