// In which order a run reads its examples: epoch after epoch, each a fresh permutation.
//
// The permutation is a function of (seed, epoch) alone, by a counter-based generator, so that a resumed run needs to
// remember nothing but how many examples were read.
#pragma once

#include <cstdint>
#include <vector>

namespace skein {

class DataOrder {
 public:
  // num_examples >= 1.
  DataOrder(std::int64_t num_examples, std::uint64_t seed);
  // Index of the example at `position`, the count of examples read before it. Cheap while positions stay in one epoch;
  // the first of an epoch costs a shuffle.
  std::int64_t at(std::int64_t position);

 private:
  void shuffle(std::int64_t epoch);

  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> permutation_;
};

// The generator: 64 well-mixed bits for (seed, stream, counter).
std::uint64_t counter_random(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter);

}  // namespace skein
