// Which row of which input fills each row of a merged vocabulary's embedding and head, and a reader that fills them.
//
// A RowMap belongs to one input: applied to that input's tensor it gives the tensor in the output's vocabulary, which
// is what a method then merges. Rows that follow each other in both form one run, so that a vocabulary with a few new
// tokens costs a few large copies.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "skein/merge/tensor_reader.h"

namespace skein::merge {

struct RowRun {
  enum class Kind {
    kCopy,  // rows [source, source + count) of input `model`
    kMean,  // the mean of means[source]; count is 1
    kZero,
    kMeanOfAll,  // the mean of this map's first num_tokens rows
  };
  std::int64_t first = 0;  // output row
  std::int64_t count = 0;
  Kind kind = Kind::kZero;
  int model = 0;
  std::int64_t source = 0;
};

struct RowAt {
  int model = 0;
  std::int64_t row = 0;
};

struct RowMap {
  std::int64_t num_tokens = 0;            // output rows that stand for tokens; the rest is padding
  std::vector<RowRun> runs;               // ascending, without gaps
  std::vector<std::vector<RowAt>> means;  // of kMean

  std::int64_t num_rows() const { return runs.empty() ? 0 : runs.back().first + runs.back().count; }
  // Adds output row num_rows(); joined to the last run where it continues it.
  void append(RowRun::Kind kind, int model = 0, std::int64_t source = 0);
  void append_mean(std::vector<RowAt> rows);
  // Every row its own, none added or dropped.
  bool is_identity(int model, std::int64_t num_rows_of_model) const;
};

// The first `rows` rows of input `model`, for merges that cut embeddings of different sizes to the smallest.
RowMap first_rows(int model, std::int64_t rows);

// The tensors that have a row per token, by the last parts of their names: embeddings and output heads.
bool has_row_per_token(std::string_view tensor_name);

// One input's tensor in the output's vocabulary. readers: the same tensor of every input, by the RowMap's numbers; null
// where the map does not need it. All have the same width (checked by the caller).
//
// dtype(): the readers' own where they agree, else kF32. Copied rows keep their bits; means are sums in f32 over inputs
// in order, rounded once; the mean of all rows is a sum in f64 over rows in order, made at the first read that needs
// it. So the elements do not depend on how they are asked for.
std::shared_ptr<const TensorReader> make_row_reader(RowMap map,
                                                    std::vector<std::shared_ptr<const TensorReader>> readers,
                                                    int model);

}  // namespace skein::merge
