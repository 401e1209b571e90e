#include "skein/merge/planned_source.h"

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

class PlannedReader : public TensorReader {
 public:
  PlannedReader(DType stored, Shape shape, bool is_raw = false)
      : stored_(stored), shape_(std::move(shape)), is_raw_(is_raw) {}

  const Shape& shape() const override { return shape_; }
  DType dtype() const override { return stored_ == DType::kF64 && !is_raw_ ? DType::kF32 : stored_; }
  DType stored_dtype() const override { return stored_; }
  std::shared_ptr<const TensorReader> as_stored() const override {
    return std::make_shared<PlannedReader>(stored_, shape_, true);
  }
  Status read(std::int64_t, std::int64_t, std::byte*, std::vector<std::byte>&) const override {
    return Error{"a stage that is only planned has no bytes"};
  }
  // So many bytes, of no file: for the sums of a dry run.
  void ranges(std::int64_t, std::int64_t count, std::vector<FileRange>& out) const override {
    out.push_back({nullptr, 0, static_cast<std::uint64_t>(count * dtype_size(stored_))});
  }
  std::int64_t working_bytes(std::int64_t) const override { return 0; }

 private:
  DType stored_;
  Shape shape_;
  bool is_raw_;
};

class PlannedSource : public Source {
 public:
  PlannedSource(const ModelRef& name, const PlannedStages::Model& stage) {
    ref = name;
    folder = concat("the stage ", name.path);
    config = stage.config;
    for (const auto& tensor : stage.plan->tensors) {
      names_.push_back(tensor.name);
      readers_.emplace(tensor.name, std::make_shared<PlannedReader>(tensor.dtype, tensor.shape));
    }
  }

  const std::vector<std::string>& names() const override { return names_; }
  std::shared_ptr<const TensorReader> find(const std::string& name) const override {
    const auto found = readers_.find(name);
    return found == readers_.end() ? nullptr : found->second;
  }

 private:
  std::vector<std::string> names_;
  std::map<std::string, std::shared_ptr<const TensorReader>> readers_;
};

}  // namespace

std::unique_ptr<Source> make_planned_source(const ModelRef& ref, const PlannedStages::Model& stage) {
  return std::make_unique<PlannedSource>(ref, stage);
}

}  // namespace skein::merge
