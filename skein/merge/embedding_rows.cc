#include "skein/merge/embedding_rows.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "skein/base/check.h"
#include "skein/io/convert_elements.h"
#include "skein/merge/aligned_bytes.h"

namespace skein::merge {
namespace {

constexpr std::int64_t kElementsAtOnce = 1 << 16;  // of the pass over all rows

class RowReader : public TensorReader {
 public:
  RowReader(RowMap map, std::vector<std::shared_ptr<const TensorReader>> readers, int model)
      : map_(std::move(map)), readers_(std::move(readers)), model_(model), shape_(readers_[model]->shape()) {
    for (const auto& reader : readers_) {
      if (reader != nullptr && reader->dtype() != readers_[model]->dtype()) dtype_ = DType::kF32;
    }
    if (!dtype_) dtype_ = readers_[model]->dtype();
    shape_[0] = map_.num_rows();
    for (std::size_t axis = 1; axis < shape_.size(); ++axis) width_ *= shape_[axis];
  }

  const Shape& shape() const override { return shape_; }
  DType dtype() const override { return *dtype_; }
  DType stored_dtype() const override { return readers_[model_]->stored_dtype(); }

  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>& scratch) const override {
    const std::int64_t size = dtype_size(*dtype_);
    for (auto run = run_of(first / width_); count > 0; ++run) {
      const std::int64_t run_end = (run->first + run->count) * width_;
      const std::int64_t part = std::min(count, run_end - first);
      SKEIN_TRY(read_run(*run, first - run->first * width_, part, out, scratch));
      first += part;
      count -= part;
      out += part * size;
    }
    return {};
  }

  void ranges(std::int64_t first, std::int64_t count, std::vector<FileRange>& out) const override {
    for (auto run = run_of(first / width_); count > 0; ++run) {
      const std::int64_t part = std::min(count, (run->first + run->count) * width_ - first);
      const std::int64_t within = first - run->first * width_;
      if (run->kind == RowRun::Kind::kCopy) {
        readers_[run->model]->ranges(run->source * width_ + within, part, out);
      } else if (run->kind == RowRun::Kind::kMean) {
        for (const RowAt& owner : map_.means[run->source]) {
          readers_[owner.model]->ranges(owner.row * width_ + within, part, out);
        }
      }
      first += part;
      count -= part;
    }
  }

  std::int64_t working_bytes(std::int64_t count) const override {
    std::int64_t inner = 0;
    for (const auto& reader : readers_) {
      if (reader != nullptr) inner = std::max(inner, reader->working_bytes(count));
    }
    return inner + 12 * count + 16 * (width_ + kElementsAtOnce);
  }

 private:
  std::vector<RowRun>::const_iterator run_of(std::int64_t row) const {
    return std::upper_bound(map_.runs.begin(), map_.runs.end(), row,
                            [](std::int64_t at, const RowRun& run) { return at < run.first + run.count; });
  }

  // Elements [within, within + count) of a run.
  Status read_run(const RowRun& run, std::int64_t within, std::int64_t count, std::byte* out,
                  std::vector<std::byte>& scratch) const {
    switch (run.kind) {
      case RowRun::Kind::kCopy:
        return copy(run.model, run.source * width_ + within, count, out, scratch);
      case RowRun::Kind::kZero:
        std::memset(out, 0, count * dtype_size(*dtype_));
        return {};
      case RowRun::Kind::kMean:
        return mean(map_.means[run.source], within, count, out, scratch);
      case RowRun::Kind::kMeanOfAll:
        break;
    }
    SKEIN_TRY(find_mean_of_all());
    std::vector<float> values(count);
    for (std::int64_t at = 0; at < count; ++at) values[at] = mean_of_all_[(within + at) % width_];
    convert_from_f32(values.data(), count, *dtype_, out);
    return {};
  }

  Status copy(int model, std::int64_t first, std::int64_t count, std::byte* out,
              std::vector<std::byte>& scratch) const {
    const TensorReader& reader = *readers_[model];
    if (reader.dtype() == *dtype_ && reinterpret_cast<std::uintptr_t>(out) % 64 == 0) {
      return reader.read(first, count, out, scratch);
    }
    AlignedBytes bytes(count * dtype_size(reader.dtype()));
    SKEIN_TRY(reader.read(first, count, bytes.data(), scratch));
    if (reader.dtype() == *dtype_) {
      std::memcpy(out, bytes.data(), bytes.size());
    } else {
      std::vector<float> values(count);
      convert_to_f32(reader.dtype(), bytes.data(), count, values.data());
      convert_from_f32(values.data(), count, *dtype_, out);
    }
    return {};
  }

  Status mean(const std::vector<RowAt>& owners, std::int64_t within, std::int64_t count, std::byte* out,
              std::vector<std::byte>& scratch) const {
    std::vector<float> sum(count, 0.0F), values(count);
    for (const RowAt& owner : owners) {
      const TensorReader& reader = *readers_[owner.model];
      AlignedBytes bytes(count * dtype_size(reader.dtype()));
      SKEIN_TRY(reader.read(owner.row * width_ + within, count, bytes.data(), scratch));
      convert_to_f32(reader.dtype(), bytes.data(), count, values.data());
      for (std::int64_t at = 0; at < count; ++at) sum[at] += values[at];
    }
    for (float& value : sum) value /= static_cast<float>(owners.size());
    convert_from_f32(sum.data(), count, *dtype_, out);
    return {};
  }

  Status find_mean_of_all() const {
    std::call_once(mean_once_, [this] { mean_status_ = sum_all_rows(); });
    return mean_status_;
  }

  Status sum_all_rows() const {
    std::vector<double> sums(width_, 0.0);
    const std::int64_t at_once = std::max<std::int64_t>(1, kElementsAtOnce / width_);  // rows
    AlignedBytes bytes(at_once * width_ * dtype_size(*dtype_));
    std::vector<float> values(at_once * width_);
    std::vector<std::byte> scratch;
    for (std::int64_t row = 0; row < map_.num_tokens; row += at_once) {
      const std::int64_t rows = std::min(at_once, map_.num_tokens - row);
      SKEIN_TRY(read(row * width_, rows * width_, bytes.data(), scratch));
      convert_to_f32(*dtype_, bytes.data(), rows * width_, values.data());
      for (std::int64_t at = 0; at < rows * width_; ++at) sums[at % width_] += values[at];
    }
    mean_of_all_.resize(width_);
    for (std::int64_t column = 0; column < width_; ++column) {
      mean_of_all_[column] = static_cast<float>(sums[column] / static_cast<double>(map_.num_tokens));
    }
    return {};
  }

  RowMap map_;
  std::vector<std::shared_ptr<const TensorReader>> readers_;
  int model_;
  Shape shape_;  // (V, D), or (V)
  std::optional<DType> dtype_;
  std::int64_t width_ = 1;
  mutable std::once_flag mean_once_;
  mutable Status mean_status_;
  mutable std::vector<float> mean_of_all_;  // (D)
};

}  // namespace

void RowMap::append(RowRun::Kind kind, int model, std::int64_t source) {
  const std::int64_t row = num_rows();
  if (!runs.empty() && runs.back().kind == kind && kind != RowRun::Kind::kMean) {
    RowRun& last = runs.back();
    if (kind != RowRun::Kind::kCopy || (last.model == model && last.source + last.count == source)) {
      ++last.count;
      return;
    }
  }
  runs.push_back({.first = row, .count = 1, .kind = kind, .model = model, .source = source});
}

void RowMap::append_mean(std::vector<RowAt> rows) {
  append(RowRun::Kind::kMean, 0, static_cast<std::int64_t>(means.size()));
  means.push_back(std::move(rows));
}

bool RowMap::is_identity(int model, std::int64_t num_rows_of_model) const {
  return num_rows() == num_rows_of_model && runs.size() == 1 && runs[0].kind == RowRun::Kind::kCopy &&
         runs[0].model == model && runs[0].source == 0;
}

RowMap first_rows(int model, std::int64_t rows) {
  RowMap map{.num_tokens = rows};
  map.runs.push_back({.first = 0, .count = rows, .kind = RowRun::Kind::kCopy, .model = model, .source = 0});
  return map;
}

bool has_row_per_token(std::string_view tensor_name) {
  // Hugging Face's names for the input embedding and the output head of the families mergekit and Skein know.
  static constexpr std::string_view kEndings[] = {"embed_tokens.weight", "lm_head.weight",   "lm_head.bias",
                                                  "shared.weight",       "wte.weight",       "word_embeddings.weight",
                                                  "embed_in.weight",     "embed_out.weight", "tok_embeddings.weight",
                                                  "output.weight",       "embedding.weight", "embeddings.weight"};
  for (const std::string_view ending : kEndings) {
    if (!tensor_name.ends_with(ending)) continue;
    const std::size_t before = tensor_name.size() - ending.size();
    // "output.weight" is InternLM's head, while "attention.output.weight" has nothing to do with tokens.
    if (ending == "output.weight" && before != 0) continue;
    if (before == 0 || tensor_name[before - 1] == '.') return true;
  }
  return false;
}

std::shared_ptr<const TensorReader> make_row_reader(RowMap map,
                                                    std::vector<std::shared_ptr<const TensorReader>> readers,
                                                    int model) {
  SKEIN_CHECK(readers[model] != nullptr && !readers[model]->shape().empty());
  return std::make_shared<RowReader>(std::move(map), std::move(readers), model);
}

}  // namespace skein::merge
