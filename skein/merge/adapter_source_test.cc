#include "skein/merge/adapter_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "skein/io/safetensors.h"
#include "skein/merge/aligned_bytes.h"

namespace skein::merge {
namespace {

using testing::HasSubstr;

const std::string kGolden = std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge";

Result<std::unique_ptr<Source>> open(const std::string& model, const std::string& adapter) {
  SKEIN_ASSIGN(auto base, open_source(real_env(), {.path = model, .adapter = adapter}, kGolden));
  return with_adapter(real_env(), std::move(base));
}

std::vector<float> read_all(const TensorReader& reader, std::int64_t at_once) {
  const std::int64_t total = *checked_numel(reader.shape());
  EXPECT_EQ(reader.dtype(), DType::kF32);
  std::vector<float> all(total);
  std::vector<std::byte> scratch;
  AlignedBytes buffer(at_once * sizeof(float));
  for (std::int64_t first = 0; first < total; first += at_once) {
    const std::int64_t count = std::min(at_once, total - first);
    or_throw(reader.read(first, count, buffer.data(), scratch));
    std::memcpy(all.data() + first, buffer.data(), count * sizeof(float));
  }
  return all;
}

std::vector<float> load(const Checkpoint& file, const std::string& name) {
  std::vector<float> values(*checked_numel(file.find(name)->shape));
  or_throw(file.read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

TEST(AdapterSource, FoldsAsPeftDoesWithPatternsAndRsLora) {
  const auto golden = or_throw(open_safetensors(real_env(), kGolden + "/adapters/folded.safetensors"));
  std::map<std::string, int> seen;
  for (const TensorInfo& info : golden->tensors()) {
    const std::string adapter = info.name.substr(0, info.name.find('|'));
    const std::string tensor = info.name.substr(info.name.find('|') + 1);
    const auto source = or_throw(open("models/f32/base", "adapters/" + adapter));
    const std::vector<float> ours = read_all(*source->find(tensor), 1000), theirs = load(*golden, info.name);
    for (std::size_t at = 0; at < ours.size(); ++at) {
      // Ranks up to 5 and entries of 0.05 * N(0, 1), at most 0.25: products and their sums stay under 5 * 0.25^2 * 3,
      // each side rounds them at most rank + 2 times, and the sum with the weight once.
      const double bound = 2 * 7 * 0.94 * std::ldexp(1.0, -24) + std::abs(theirs[at]) * std::ldexp(1.0, -23);
      ASSERT_NEAR(ours[at], theirs[at], bound) << info.name << " element " << at;
    }
    ++seen[adapter];
  }
  EXPECT_THAT(seen, testing::ElementsAre(testing::Pair("patterns", 6), testing::Pair("rslora", 6),
                                         testing::Pair("three", 6), testing::Pair("two", 6)));
}

TEST(AdapterSource, ScalesByIa3AsPeftDoes) {
  const auto golden = or_throw(open_safetensors(real_env(), kGolden + "/adapters/folded_ia3.safetensors"));
  int seen = 0;
  for (const TensorInfo& info : golden->tensors()) {
    const std::string adapter = info.name.substr(0, info.name.find('|'));
    const auto source = or_throw(open("models/f32/base", "adapters/" + adapter));
    const auto reader = source->find(info.name.substr(info.name.find('|') + 1));
    EXPECT_EQ(read_all(*reader, 7), load(*golden, info.name)) << info.name;  // one product each: the same bits
    ++seen;
  }
  EXPECT_EQ(seen, 18);
}

TEST(AdapterSource, GivesTheSameBitsWhateverIsAskedForAtOnce) {
  const auto source = or_throw(open("models/bf16/code", "adapters/two"));
  const auto reader = source->find("model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(reader->stored_dtype(), DType::kBF16);
  const std::vector<float> whole = read_all(*reader, 1 << 16);
  for (const std::int64_t at_once : {1, 7, 24, 300}) EXPECT_EQ(read_all(*reader, at_once), whole) << at_once;
}

TEST(AdapterSource, LeavesOtherTensorsAlone) {
  const auto source = or_throw(open("models/bf16/code", "adapters/three"));
  const auto base = or_throw(open_source(real_env(), {.path = "models/bf16/code"}, kGolden));
  EXPECT_EQ(source->names(), base->names());
  EXPECT_EQ(source->find("model.layers.0.mlp.down_proj.weight")->dtype(), DType::kBF16);
  EXPECT_EQ(source->find("model.layers.0.self_attn.q_proj.weight")->dtype(), DType::kF32);
  EXPECT_EQ(source->find("absent"), nullptr);
  EXPECT_EQ(source->files.size(), base->files.size() + 2);
  or_throw(check_unchanged(real_env(), source->files));
}

TEST(AdapterSource, RefusesByNameWhatItDoesNotFold) {
  EXPECT_THAT(open("models/f32/base", "adapters/dora").error().message, HasSubstr("use_dora"));
  EXPECT_THAT(open("models/f32/base", "adapters/bias").error().message, HasSubstr("bias"));
  EXPECT_THAT(open("models/f32/base", "models/f32/code").error().message, HasSubstr("this is a model"));
  EXPECT_THAT(open("tokenizer/models/plain", "adapters/two").error().message, HasSubstr("an adapter of another base"));
}

}  // namespace
}  // namespace skein::merge
