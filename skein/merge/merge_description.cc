#include "skein/merge/merge_description.h"

#include <cstdio>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

std::string with_digits(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string size_text(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return with_digits("%.2f GB", value / 1e9);
  if (bytes >= 1'000'000) return with_digits("%.1f MB", value / 1e6);
  return concat(bytes, " bytes");
}

// The most passes over its inputs that any tensor takes, sweeps included.
int num_passes(const Plan& plan) {
  if (plan.jobs.empty()) return 1;
  const auto tensor = plan.model->tensor(plan.jobs.back());
  return plan.model->num_sweeps() + 1 + (tensor.ok() ? (*tensor)->num_passes() : 0);
}

}  // namespace

double estimated_seconds(const Plan& plan, const MemoryPlan& memory) {
  // Cold reads and writes share the disk; passes after the first find their bytes in the page cache.
  constexpr double kDiskBytesPerSecond = 1.5e9, kCachedBytesPerSecond = 2.5e9;
  const auto read = static_cast<double>(plan.read_bytes()), written = static_cast<double>(plan.weight_bytes());
  return (read + written) / kDiskBytesPerSecond +
         read * (num_passes(plan) - 1) / (kCachedBytesPerSecond * memory.num_workers);
}

std::string plan_as_text(const Plan& plan, const MemoryPlan& memory) {
  std::string text = concat("method      ", plan.method->name, " (", plan.method->title, ")\n");
  for (std::size_t i = 0; i < plan.sources.size(); ++i) {
    const bool is_base = plan.recipe->base_model && plan.sources[i]->ref == *plan.recipe->base_model;
    text += concat(is_base ? "base        " : "model       ", printable(plan.sources[i]->ref.text(), 400), " in ",
                   plan.sources[i]->folder, "\n");
  }
  for (const auto& [stack, layers] : plan.stacks) text += concat("layers      ", layers, " in ", stack, "\n");
  std::size_t copies = 0;
  for (const auto& tensor : plan.tensors) copies += tensor.is_copy ? 1 : 0;
  text += concat("tensors     ", plan.tensors.size() - copies, " merged, ", copies, " copied, ", plan.dropped.size(),
                 " of the inputs dropped\n");
  for (const auto& file : plan.files) text += concat("file        ", file.name, ", ", size_text(file.size_bytes), "\n");
  text += concat("reads       ", size_text(plan.read_bytes()), " in ", num_passes(plan), " passes\n");
  text += concat("writes      ", size_text(plan.weight_bytes()), "\n");
  text += concat("memory      at most ", size_text(static_cast<std::uint64_t>(memory.peak_bytes)), " with ",
                 memory.num_workers, " threads\n");
  text += concat("time        about ", with_digits("%.1f", estimated_seconds(plan, memory)),
                 " s at 1.5 GB/s of disk; measure yours\n");
  for (const auto& dropped : plan.dropped) {
    text += concat("dropped     ", printable(dropped.name, 200), " of ", printable(dropped.model, 200), ": ",
                   dropped.why, "\n");
  }
  return text;
}

Json plan_as_json(const Plan& plan, const MemoryPlan& memory) {
  Json tensors = Json::array(), files = Json::array(), dropped = Json::array(), models = Json::array();
  for (const auto& source : plan.sources) models.push_back({{"model", source->ref.text()}, {"folder", source->folder}});
  for (const auto& file : plan.files) files.push_back({{"name", file.name}, {"bytes", file.size_bytes}});
  for (const auto& tensor : plan.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"file", plan.files[static_cast<std::size_t>(tensor.file)].name},
                       {"offset", tensor.offset},
                       {"bytes", tensor.num_bytes},
                       {"copied", tensor.is_copy}});
  }
  for (const auto& tensor : plan.dropped) {
    dropped.push_back({{"model", tensor.model}, {"tensor", tensor.name}, {"why", tensor.why}});
  }
  return {{"method", plan.method->name},
          {"models", std::move(models)},
          {"files", std::move(files)},
          {"read_bytes", plan.read_bytes()},
          {"passes", num_passes(plan)},
          {"write_bytes", plan.weight_bytes()},
          {"peak_bytes", memory.peak_bytes},
          {"threads", memory.num_workers},
          {"estimated_seconds", estimated_seconds(plan, memory)},
          {"tensors", std::move(tensors)},
          {"dropped", std::move(dropped)}};
}

}  // namespace skein::merge
