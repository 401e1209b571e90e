#include "skein/merge/plan.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/io/safetensors.h"
#include "skein/merge/parameters.h"

namespace skein::merge {
namespace {

bool is_piece_type(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32; }

// The type that holds both: two 16-bit formats meet in f32; an 8-bit one in the other's, or in bf16.
DType common_type(DType a, DType b) {
  const auto widened = [](DType dtype) {
    if (dtype == DType::kF64) return DType::kF32;
    return is_piece_type(dtype) ? dtype : DType::kBF16;
  };
  const bool a_small = dtype_size(a) == 1, b_small = dtype_size(b) == 1;
  if (a_small != b_small) return widened(a_small ? b : a);
  return widened(a) == widened(b) ? widened(a) : DType::kF32;
}

// Buffers that old checkpoints carry and every loader makes anew.
bool is_remade_by_loaders(const std::string& name) {
  for (const char* ending : {"rotary_emb.inv_freq", "attn.masked_bias", "attn.bias", "embeddings.position_ids"}) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

class Planner {
 public:
  Planner(Plan& plan, const AdjustInputs& adjust)
      : plan_(plan), recipe_(*plan.recipe), method_(*plan.method), adjust_(adjust), resolver_(recipe_, method_) {}

  Status run() {
    SKEIN_TRY(check_parameter_names(recipe_, method_, plan_.warnings));
    SKEIN_ASSIGN(const InputLayout layout, lay_out_inputs(recipe_, plan_.sources));
    plan_.stacks = layout.stacks;
    for (const auto& tensor : layout.tensors) SKEIN_TRY(add(tensor));
    if (plan_.tensors.empty()) return Error{concat(recipe_.path, ": nothing to merge: no output tensor")};
    for (auto& sentence : resolver_.unused_filters()) plan_.warnings.push_back(std::move(sentence));
    list_dropped();
    for (std::size_t i = 0; i < plan_.jobs.size(); ++i) plan_.jobs[i].index = static_cast<std::int64_t>(i);
    SKEIN_ASSIGN(plan_.model, method_.make(method_, plan_.jobs, plan_.options.num_workers));
    SKEIN_TRY(place_weights());
    SKEIN_TRY(place_extras());
    plan_.digest = digest();
    return {};
  }

 private:
  Error fault(const std::string& what) const { return Error{concat(recipe_.path, ": ", what)}; }
  const Source& source(int index) const { return *plan_.sources[static_cast<std::size_t>(index)]; }
  std::string model_name(int index) const { return printable(source(index).ref.text()); }

  void drop(const TensorInputs& tensor, const std::string& why) {
    for (const auto& input : tensor.inputs) {
      plan_.dropped.push_back({source(input.source).ref.text(), input.name, why});
      used_.emplace(input.source, input.name);
    }
  }

  Status add(const TensorInputs& tensor) {
    std::vector<const TensorInput*> models;
    const TensorInput* base = nullptr;
    for (const auto& input : tensor.inputs) {
      // A base listed among the models of a method without a base is a model like any other; one that is not listed
      // (own == nullptr) has no part in it.
      if (!input.is_base || (method_.base == BaseRole::kNone && input.own != nullptr)) {
        models.push_back(&input);
      } else if (method_.base != BaseRole::kNone) {
        base = &input;
      }
    }
    const bool base_lacks_it = method_.base != BaseRole::kNone && tensor.wants_base && base == nullptr;
    std::size_t num_without = 0;
    for (const int without : tensor.without) {
      const bool is_idle_base = method_.base == BaseRole::kNone && recipe_.base_model &&
                                source(without).ref == *recipe_.base_model && !listed(tensor, without);
      num_without += is_idle_base ? 0 : 1;
    }
    if (models.empty() && base == nullptr) {
      drop(tensor, "only the base has it, which this method does not use");
      return {};
    }
    if (!is_floating(reader_of(tensor.inputs[0]).stored_dtype())) return add_buffer(tensor, models, base);
    if (num_without > 0 || base_lacks_it) return add_incomplete(tensor, models, base);
    SKEIN_TRY(check_counts(tensor, models, base));
    return add_merge(tensor, models, base);
  }

  // Whether a source that lacks the tensor is listed by the recipe as a model.
  bool listed(const TensorInputs&, int source_idx) const {
    for (const auto& module : recipe_.modules) {
      for (const auto& input : module.models) {
        if (input.model == source(source_idx).ref) return true;
      }
      for (const auto& slice : module.slices) {
        for (const auto& entry : slice.sources) {
          if (entry.model == source(source_idx).ref) return true;
        }
      }
    }
    return false;
  }

  const TensorReader& reader_of(const TensorInput& input) const { return *source(input.source).find(input.name); }

  Status check_counts(const TensorInputs& tensor, const std::vector<const TensorInput*>& models,
                      const TensorInput* base) const {
    const int count = static_cast<int>(models.size());
    const std::string where = concat(recipe_.path, ", line ", recipe_.line, ": ", method_.name);
    if (method_.base == BaseRole::kRequired && base == nullptr) {
      return Error{concat(where, recipe_.base_model ? " needs its base among the sources of every slice; list it there"
                                                    : " needs a base_model")};
    }
    if (count < method_.min_models || count > method_.max_models) {
      const std::string wanted = method_.min_models == method_.max_models ? concat("exactly ", method_.min_models)
                                 : count < method_.min_models             ? concat("at least ", method_.min_models)
                                                                          : concat("at most ", method_.max_models);
      return Error{concat(where, " merges ", wanted,
                          method_.base == BaseRole::kNone ? " models" : " models beside the base",
                          "; the recipe gives ", count, " for tensor ", printable(tensor.name))};
    }
    return {};
  }

  // Tensors of integers are not merged: all inputs must agree.
  Status add_buffer(const TensorInputs& tensor, const std::vector<const TensorInput*>& models,
                    const TensorInput* base) {
    OutputTensor out;
    out.is_copy = true;
    set_inputs(out, models, nullptr);
    if (base != nullptr) {
      out.models.insert(out.models.begin(), source(base->source).find(base->name));
      out.model_sources.insert(out.model_sources.begin(), base->source);
    }
    out.dtype = out.models[0]->dtype();
    return finish(tensor, std::move(out));
  }

  Status add_incomplete(const TensorInputs& tensor, const std::vector<const TensorInput*>& models,
                        const TensorInput* base) {
    const std::size_t holders = models.size() + (base != nullptr ? 1 : 0);
    const TensorInput* only = base != nullptr ? base : models[0];
    switch (method_.missing) {
      case MissingTensor::kPassSingle:
        if (holders == 1) return add_copy(tensor, *only);
        break;
      case MissingTensor::kPassBaseSingle:
        if (holders == 1 && base != nullptr) return add_copy(tensor, *base);
        break;
      case MissingTensor::kBaseOrSkip:
        if (base != nullptr) return add_copy(tensor, *base);
        drop(tensor, "not every model has it, and the base has not");
        return {};
      case MissingTensor::kError:
        break;
    }
    if (is_remade_by_loaders(tensor.name)) {
      drop(tensor, "not every model has it; loaders make it anew");
      return {};
    }
    std::string lacking;
    for (const int without : tensor.without) lacking += (lacking.empty() ? "" : ", ") + model_name(without);
    return fault(concat("tensor ", printable(tensor.name), " is in ", model_name(tensor.inputs[0].source),
                        " and not in ", lacking, "; ", method_.name,
                        " needs it in every model; are they of one architecture?"));
  }

  Status add_copy(const TensorInputs& tensor, const TensorInput& only) {
    OutputTensor out;
    out.is_copy = true;
    set_inputs(out, {&only}, nullptr);
    out.dtype = output_type(out);
    cast_inputs(out);
    for (const auto& input : tensor.inputs) {
      used_.emplace(input.source, input.name);
      if (&input != &only)
        plan_.dropped.push_back({source(input.source).ref.text(), input.name, "the base's was kept"});
    }
    return finish(tensor, std::move(out));
  }

  void set_inputs(OutputTensor& out, const std::vector<const TensorInput*>& models, const TensorInput* base) const {
    for (const auto* model : models) {
      out.models.push_back(source(model->source).find(model->name));
      out.model_sources.push_back(model->source);
    }
    if (base == nullptr) return;
    out.base = source(base->source).find(base->name);
    out.base_source = base->source;
  }

  // Inputs are cast to the recipe's `dtype` as they are read; readers give no more than f32 in any case.
  void cast_inputs(OutputTensor& out) const {
    if (!recipe_.dtype || dtype_size(*recipe_.dtype) > 2) return;
    const auto round = [&](std::shared_ptr<const TensorReader>& reader) {
      if (reader != nullptr && reader->dtype() != *recipe_.dtype) {
        reader = make_rounding_reader(std::move(reader), *recipe_.dtype);
      }
    };
    for (auto& model : out.models) round(model);
    round(out.base);
  }

  // The type the merge works in: the recipe's `dtype`, else what holds all inputs.
  DType working_type(const OutputTensor& out) const {
    if (recipe_.dtype) return *recipe_.dtype;
    DType type = common_type(out.models[0]->stored_dtype(), out.models[0]->stored_dtype());
    for (const auto& model : out.models) type = common_type(type, model->stored_dtype());
    if (out.base != nullptr) type = common_type(type, out.base->stored_dtype());
    return type;
  }
  DType output_type(const OutputTensor& out) const {
    return recipe_.out_dtype ? *recipe_.out_dtype : working_type(out);
  }

  Status add_merge(const TensorInputs& tensor, const std::vector<const TensorInput*>& models, const TensorInput* base) {
    OutputTensor out;
    set_inputs(out, models, base);
    const DType working = working_type(out);
    out.dtype = output_type(out);
    cast_inputs(out);
    SKEIN_ASSIGN(MethodParameters parameters, resolver_.resolve(tensor, models));
    if (method_.is_copy != nullptr && method_.is_copy(parameters)) {
      out.is_copy = true;
      const bool is_wide = out.models[0]->stored_dtype() == DType::kF64 && out.models[0]->as_stored() != nullptr;
      if (is_wide && !recipe_.dtype && !recipe_.out_dtype) out.dtype = DType::kF64;
      return finish(tensor, std::move(out));
    }
    plan_.parameters.push_back(std::move(parameters));
    TensorJob job;
    job.name = tensor.name;
    job.num_models = static_cast<int>(models.size());
    job.has_base = base != nullptr;
    job.parameters = &plan_.parameters.back();
    job.seed = plan_.options.seed;
    job.working_dtype = working == DType::kF64 ? DType::kF32 : working;
    out.job = static_cast<int>(plan_.jobs.size());
    plan_.jobs.push_back(std::move(job));
    return finish(tensor, std::move(out));
  }

  Status finish(const TensorInputs& tensor, OutputTensor out) {
    for (const auto& input : tensor.inputs) used_.emplace(input.source, input.name);
    out.name = tensor.name;
    if (adjust_) SKEIN_TRY(adjust_(out));
    if (out.is_copy && out.dtype == DType::kF64 && recipe_.dtype.value_or(DType::kF64) == DType::kF64) {
      if (auto exact = out.models[0]->as_stored()) out.models[0] = std::move(exact);
    }
    out.shape = (out.base != nullptr ? out.base : out.models[0])->shape();
    for (std::size_t i = 0; i < out.models.size(); ++i) {
      if (out.models[i]->shape() == out.shape) continue;
      const int first = out.base != nullptr ? out.base_source : out.model_sources[0];
      return fault(
          concat("tensor ", printable(out.name), " is ", to_string(out.models[i]->shape()), " in ",
                 model_name(out.model_sources[i]), " and ", to_string(out.shape), " in ", model_name(first),
                 "; equal shapes were expected (vocabularies of different sizes: say `tokenizer_source: union`)"));
    }
    const auto numel = checked_numel(out.shape);
    const auto bytes = numel ? checked_mul(*numel, dtype_size(out.dtype)) : std::nullopt;
    if (!bytes) return fault(concat("tensor ", printable(out.name), ": its size overflows"));
    out.num_bytes = static_cast<std::uint64_t>(*bytes);
    if (out.job >= 0) plan_.jobs[static_cast<std::size_t>(out.job)].shape = out.shape;
    plan_.tensors.push_back(std::move(out));
    return {};
  }

  void list_dropped() {
    for (std::size_t i = 0; i < plan_.sources.size(); ++i) {
      for (const auto& name : plan_.sources[i]->names()) {
        if (used_.contains({static_cast<int>(i), name})) continue;
        plan_.dropped.push_back({plan_.sources[i]->ref.text(), name, "no slice or module takes it"});
      }
    }
  }

  // ---- files ----

  // A file takes tensors in the order of names until the next would exceed the bound.
  Status place_weights() {
    std::vector<std::vector<std::size_t>> groups(1);
    std::uint64_t filled = 0;
    for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
      const std::uint64_t bytes = plan_.tensors[i].num_bytes;
      if (!groups.back().empty() && filled + bytes > plan_.options.shard_bytes) {
        groups.emplace_back();
        filled = 0;
      }
      groups.back().push_back(i);
      filled += bytes;
    }
    for (std::size_t g = 0; g < groups.size(); ++g) {
      char name[64] = "model.safetensors";
      if (groups.size() > 1)
        std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", g + 1, groups.size());
      SKEIN_TRY(place(name, groups[g]));
    }
    return {};
  }

  // Larger elements first, so that every tensor is aligned to its type.
  Status place(const std::string& name, std::vector<std::size_t> group) {
    std::stable_sort(group.begin(), group.end(), [&](std::size_t a, std::size_t b) {
      return dtype_size(plan_.tensors[a].dtype) > dtype_size(plan_.tensors[b].dtype);
    });
    std::vector<TensorPlan> entries;
    for (const std::size_t i : group) {
      entries.push_back({plan_.tensors[i].name, plan_.tensors[i].dtype, plan_.tensors[i].shape});
    }
    SKEIN_ASSIGN(std::string header, make_safetensors_header(name, entries, {{"format", "pt"}}));
    std::uint64_t offset = header.size();
    for (const std::size_t i : group) {
      plan_.tensors[i].file = static_cast<int>(plan_.files.size());
      plan_.tensors[i].offset = offset;
      offset += plan_.tensors[i].num_bytes;
    }
    plan_.files.push_back({name, std::move(header), offset, true});
    return {};
  }

  Status place_extras() {
    std::map<std::string, std::vector<std::pair<std::size_t, ExtraOutput>>> by_file;
    for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
      auto& tensor = plan_.tensors[i];
      if (tensor.job < 0) continue;
      for (auto& extra : plan_.model->extra_outputs(plan_.jobs[static_cast<std::size_t>(tensor.job)])) {
        by_file[extra.file].emplace_back(i, std::move(extra));
      }
    }
    for (auto& [stem, extras] : by_file) {
      std::vector<TensorPlan> entries;
      for (const auto& [i, extra] : extras) entries.push_back({extra.name, extra.dtype, extra.shape});
      const std::string name = stem + ".safetensors";
      SKEIN_ASSIGN(std::string header, make_safetensors_header(name, entries, {}));
      std::uint64_t offset = header.size();
      for (const auto& [i, extra] : extras) {
        plan_.tensors[i].extras.push_back({static_cast<int>(plan_.files.size()), offset, extra.bits_per_element});
        offset += static_cast<std::uint64_t>(checked_numel(extra.shape).value_or(0) * dtype_size(extra.dtype));
      }
      plan_.files.push_back({name, std::move(header), offset, false});
    }
    return {};
  }

  std::string digest() const {
    Digest digest;
    digest.update(concat("skein merge plan 1 ", method_.name, " seed ", plan_.options.seed));
    for (const auto& file : plan_.files) {
      digest.update(file.name);
      digest.update(file.header);
    }
    for (const auto& tensor : plan_.tensors) {
      digest.update(concat(tensor.name, " ", tensor.file, " ", tensor.offset, " ", tensor.is_copy));
      if (tensor.base != nullptr) digest.update(concat("base ", tensor.base_source));
      for (const int model : tensor.model_sources) digest.update(concat("model ", model));
      if (tensor.job < 0) continue;
      const auto& job = plan_.jobs[static_cast<std::size_t>(tensor.job)];
      digest.update(concat("type ", dtype_name(job.working_dtype)));
      digest.update(describe(*job.parameters, job.num_models));
    }
    for (const auto& source : plan_.sources) {
      for (const auto& file : source->files) digest.update(concat(file.facts.size_bytes, " ", file.header_digest));
    }
    return digest.hex();
  }

  std::string describe(const MethodParameters& parameters, int num_models) const {
    std::string text;
    for (const auto& spec : method_.parameters) {
      const bool global = spec.scope == ParameterSpec::Scope::kGlobal;
      for (int model = 0; model < (global ? 1 : num_models); ++model) {
        if (!parameters.has(spec.name, model)) continue;
        text += concat(" ", spec.name, "[", model, "]=");
        switch (spec.kind) {
          case ParameterSpec::Kind::kNumber: {
            char number[40];
            std::snprintf(number, sizeof(number), "%.17g",
                          global ? parameters.number(spec.name) : parameters.number(spec.name, model));
            text += number;
            break;
          }
          case ParameterSpec::Kind::kBool:
            text += parameters.flag(spec.name) ? "true" : "false";
            break;
          case ParameterSpec::Kind::kChoice:
            text += parameters.choice(spec.name);
            break;
        }
      }
    }
    return text;
  }

  Plan& plan_;
  const Recipe& recipe_;
  const MethodInfo& method_;
  const AdjustInputs& adjust_;
  ParameterResolver resolver_;
  std::set<std::pair<int, std::string>> used_;
};

}  // namespace

std::int64_t OutputTensor::num_elements() const { return checked_numel(shape).value_or(0); }

std::vector<InputFile> Plan::input_files() const {
  std::map<std::string, InputFile> files;
  for (const auto& source : sources) {
    for (const auto& file : source->files) files.emplace(file.path, file);
  }
  std::vector<InputFile> sorted;
  for (auto& [path, file] : files) sorted.push_back(std::move(file));
  return sorted;
}

std::uint64_t Plan::weight_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.num_bytes;
  return bytes;
}

std::uint64_t Plan::read_bytes() const {
  std::uint64_t bytes = 0;
  std::vector<FileRange> ranges;
  for (const auto& tensor : tensors) {
    ranges.clear();
    for (const auto& model : tensor.models) model->ranges(0, tensor.num_elements(), ranges);
    if (tensor.base != nullptr) tensor.base->ranges(0, tensor.num_elements(), ranges);
    for (const auto& range : ranges) bytes += range.size;
  }
  return bytes;
}

Result<std::unique_ptr<Plan>> make_plan(const Recipe& recipe, std::vector<std::unique_ptr<Source>> sources,
                                        const PlanOptions& options, const AdjustInputs& adjust) {
  auto plan = std::make_unique<Plan>();
  plan->recipe = &recipe;
  plan->options = options;
  plan->sources = std::move(sources);
  plan->warnings = recipe.warnings;
  SKEIN_ASSIGN(plan->method, method_of(recipe));
  SKEIN_TRY(Planner(*plan, adjust).run());
  return plan;
}

}  // namespace skein::merge
