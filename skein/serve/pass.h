// One pass over the model for rows of several sequences.
#pragma once

#include <memory>
#include <vector>

#include "skein/serve/pass_trace.h"
#include "skein/serve/sequence.h"

namespace skein {

// Tokens [begin, begin + count) of a sequence's stream; the earlier ones are in its cache.
struct RowsOfSequence {
  Sequence* sequence = nullptr;
  std::int64_t begin = 0, count = 0;
};
using PassRows = std::vector<RowsOfSequence>;

struct PassResult {
  at::Tensor hidden;                           // (N, D), the sequences' rows in order
  std::vector<std::int64_t> first_row;         // of each sequence
  at::Tensor source_hidden;                    // (S, D): encoder-decoders, of the sequences that begin
  std::vector<std::int64_t> first_source_row;  // of each sequence; -1: it does not begin
  // Of each sequence that wants one: the trace its rows are in, and where they begin there.
  struct Traced {
    std::shared_ptr<const PassTrace> trace;
    std::int64_t first_row = 0, first_source_row = 0;
  };
  std::vector<Traced> traced;
};

// Extends the sequences' caches. Throws Failure and libtorch's exceptions.
PassResult run_pass(const Backbone& backbone, const PassRows& rows);

}  // namespace skein
