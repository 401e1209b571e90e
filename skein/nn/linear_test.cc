#include "skein/nn/linear.h"

#include <stdexcept>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

class FrozenLinears : public testing::TestWithParam<c10::ScalarType> {
 protected:
  LinearGroup group() const {
    return make_linear_group({normal({70, 40}, 1).to(GetParam()), normal({23, 40}, 2).to(GetParam())},
                             {{}, normal({23}, 4).to(GetParam())}, {0, 1});
  }
};

TEST_P(FrozenLinears, WorkBesideTheProductIsDoneOnceByTheCallerAndChangesNoBit) {
  const at::NoGradGuard no_grad;
  const int threads = at::get_num_threads();
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    for (const std::int64_t rows : {1, 5}) {
      const at::Tensor x = normal({rows, 40}, 3).to(GetParam());
      int calls = 0;
      std::thread::id by;
      const auto outputs = apply_frozen(group(), x, [&] {
        ++calls;
        by = std::this_thread::get_id();
      });
      EXPECT_EQ(calls, 1);
      EXPECT_EQ(by, std::this_thread::get_id());
      const auto expected = apply_frozen(group(), x);
      ASSERT_EQ(outputs.size(), expected.size());
      for (std::size_t i = 0; i < outputs.size(); ++i) EXPECT_TRUE(at::equal(outputs[i], expected[i]));
    }
  }
  at::set_num_threads(threads);
}

TEST_P(FrozenLinears, AFailureBesideTheProductReachesTheCaller) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = normal({2, 40}, 3).to(GetParam());
  EXPECT_THROW(apply_frozen(group(), x, [] { throw std::runtime_error("no gate"); }), std::runtime_error);
}

INSTANTIATE_TEST_SUITE_P(Types, FrozenLinears, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace skein
