#include "tests/agreement/merge/golden_merge.h"

#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "skein/base/half.h"
#include "skein/io/convert_elements.h"
#include "skein/io/safetensors.h"
#include "skein/merge/aligned_bytes.h"
#include "skein/merge/run_merge.h"

namespace skein::merge::agreement {
namespace {

// Bits of a value in its type, as an integer that grows with the value.
std::int64_t ordered_bits(float value, DType dtype) {
  std::uint32_t magnitude = std::bit_cast<std::uint32_t>(std::abs(value));
  if (dtype == DType::kBF16) magnitude = f32_to_bf16(std::abs(value));
  if (dtype == DType::kF16) magnitude = f32_to_f16(std::abs(value));
  return std::signbit(value) ? -static_cast<std::int64_t>(magnitude) : static_cast<std::int64_t>(magnitude);
}

}  // namespace

std::string golden_folder() { return std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge/"; }

Tensors read_tensors(const std::string& path) {
  const bool is_file = path.ends_with(".safetensors");
  const auto file = or_throw(is_file ? open_safetensors(real_env(), path) : open_safetensors_folder(real_env(), path));
  Tensors tensors;
  for (const TensorInfo& info : file->tensors()) {
    Tensor tensor{.dtype = info.dtype, .shape = info.shape};
    tensor.values.resize(*checked_numel(info.shape));
    if (is_floating(info.dtype)) {
      or_throw(file->read(info.name, DType::kF32, std::as_writable_bytes(std::span(tensor.values))));
    } else {  // masks
      std::vector<std::byte> bytes(tensor.values.size() * dtype_size(info.dtype));
      or_throw(file->read(info.name, info.dtype, bytes));
      for (std::size_t at = 0; at < bytes.size(); ++at) tensor.values[at] = static_cast<float>(bytes[at]);
    }
    tensors.emplace(info.name, std::move(tensor));
  }
  return tensors;
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const std::string& file : or_throw(real_env().list(golden_folder() + "recipes"))) {
    if (file.ends_with(".yml")) names.push_back(file.substr(0, file.size() - 4));
  }
  return names;
}

Tensors merge_with_skein(const std::string& recipe_path, std::uint64_t seed,
                         const std::function<void(const std::string& folder)>& look) {
  const auto folder = std::filesystem::temp_directory_path() / ("skein_merge_agreement_" + std::to_string(getpid()));
  MergeRequest request;
  request.recipe_path = recipe_path;
  request.seed = seed;
  request.num_threads = 2;
  request.overwrite = true;
  request.out = folder.string();
  const auto comm = or_throw(make_comm());
  or_throw(run_merge(real_env(), *comm, request));
  Tensors tensors = read_tensors(request.out);
  if (look) look(request.out);
  or_throw(real_env().remove_tree(request.out));
  return tensors;
}

std::unique_ptr<Planned> plan_of(const std::string& recipe_path, std::uint64_t seed) {
  auto planned = std::make_unique<Planned>();
  planned->recipe = or_throw(parse_recipes(or_throw(read_text_file(real_env(), recipe_path)), recipe_path)).at(0);
  auto sources = or_throw(open_inputs(real_env(), planned->recipe));
  planned->alignment = or_throw(InputAlignment::make(real_env(), planned->recipe, sources, false));
  planned->plan = or_throw(make_plan(planned->recipe, std::move(sources), {.seed = seed},
                                     [&](OutputTensor& tensor) { return planned->alignment->adjust(tensor); }));
  return planned;
}

std::vector<float> read_input(const TensorReader& reader) {
  const std::int64_t count = *checked_numel(reader.shape());
  AlignedBytes bytes(count * dtype_size(reader.dtype()));
  std::vector<std::byte> scratch;
  or_throw(reader.read(0, count, bytes.data(), scratch));
  std::vector<float> values(count);
  convert_to_f32(reader.dtype(), bytes.data(), count, values.data());
  return values;
}

double epsilon_of(DType dtype) {
  return std::ldexp(1.0, dtype == DType::kBF16 ? -7 : dtype == DType::kF16 ? -10 : -23);
}

std::int64_t ulps_between(float a, float b, DType dtype) {
  return std::abs(ordered_bits(a, dtype) - ordered_bits(b, dtype));
}

}  // namespace skein::merge::agreement
