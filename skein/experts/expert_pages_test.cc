#include "skein/experts/expert_pages.h"

#include <random>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/experts/apply.h"
#include "skein/experts/bank.h"
#include "skein/experts/random_experts.h"

namespace skein {
namespace {

std::vector<std::byte> bytes_of(int value, std::size_t size) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

TEST(ExpertPages, KeepThosePiecesThatWereUsedLast) {
  ExpertPages pages(2 * 4096);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pages.append(bytes_of(i + 1, 100)), i);
  pages.map();
  for (const int i : {0, 1, 0, 2, 0, 1}) {  // 2 drives out 1, and 1 drives out 2
    pages.use(i);
    EXPECT_EQ(*pages.piece(i), static_cast<std::byte>(i + 1));
  }
  const ExpertPages::Counts counts = pages.counts();
  EXPECT_EQ(counts.misses, 4u);
  EXPECT_EQ(counts.hits, 2u);
  EXPECT_EQ(counts.bytes_read, 4u * 4096);
  EXPECT_EQ(counts.bytes_kept, 2u * 4096);
  EXPECT_EQ(counts.bytes_stored, 4u * 4096);
  EXPECT_EQ(*pages.piece(3), std::byte{4}) << "never used, still there";
}

TEST(ExpertPages, APagedBankComputesTheSameBits) {
  const std::vector<SlotName> slots = {slot_named("model.one", 40, 24), slot_named("model.two", 24, 56)};
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    std::mt19937_64 generator(6);
    std::vector<LoraAdapter> adapters;
    std::vector<std::string> names;
    for (int e = 0; e < 12; ++e) {
      adapters.push_back(random_adapter(slots, {3 + e % 4, e % 3 == 0 ? 0 : 5}, generator));
      names.push_back("expert " + std::to_string(e));
    }
    const ComputeOptions compute{.dtype = dtype};
    const ExpertBank whole(adapters, names, slots, compute);
    const ExpertBank paged(
        names, slots, compute, [&](int e) { return adapters[e]; }, 3 * 4096);
    EXPECT_EQ(paged.num_parameters(), whole.num_parameters());
    for (int s = 0; s < 2; ++s) {
      const at::Tensor x = at::randn({9, slots[s].d_in}).to(dtype), y = at::randn({9, slots[s].d_out}).to(dtype);
      const Mixture mixture{at::randint(0, 12, {9, 2}).to(at::kInt), at::rand({9, 2})};
      const at::Tensor expected = y.clone(), found = y.clone();
      apply_mixture(whole.slot(s), mixture, x, expected);
      apply_mixture(paged.slot(s), mixture, x, found);
      EXPECT_TRUE(at::equal(found, expected));
      EXPECT_TRUE(at::equal(paged.slot(s).stacked().a, whole.slot(s).stacked().a));
      EXPECT_TRUE(at::equal(paged.slot(s).stacked().b, whole.slot(s).stacked().b));
      EXPECT_EQ(paged.slot(s).finite(), whole.slot(s).finite());
    }
    const ExpertPages::Counts counts = paged.pages()->counts();
    EXPECT_GT(counts.misses, 3u);
    EXPECT_LE(counts.bytes_kept, 3u * 4096);
    EXPECT_EQ(whole.pages(), nullptr);
  }
}

}  // namespace
}  // namespace skein
