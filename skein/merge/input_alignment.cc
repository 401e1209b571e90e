#include "skein/merge/input_alignment.h"

#include <algorithm>
#include <utility>

#include "skein/base/concat.h"
#include "skein/merge/adapter_source.h"
#include "skein/merge/embedding_rows.h"

namespace skein::merge {
namespace {

// Rows of a model's input embedding; the config's vocab_size where the embedding has no name that is known.
std::int64_t embedding_rows_of(const Source& source) {
  for (const std::string& name : source.names()) {
    if (!has_row_per_token(name) || name.find("head") != std::string::npos) continue;
    const auto reader = source.find(name);
    if (reader->shape().size() == 2) return reader->shape()[0];
  }
  const auto found = source.config.find("vocab_size");
  return found != source.config.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

std::optional<int> index_of_base(const Recipe& recipe) {
  if (!recipe.base_model) return std::nullopt;
  const std::vector<ModelRef> models = recipe.models();
  const auto found = std::find(models.begin(), models.end(), *recipe.base_model);
  return static_cast<int>(found - models.begin());
}

}  // namespace

namespace {

// A model, its adapter not folded in; of a planned adapter nothing matters, since it changes neither names nor shapes.
Result<std::unique_ptr<Source>> open_model(Env& env, const ModelRef& ref, const std::string& beside,
                                           const std::shared_ptr<PrefetchRoom>& room, const PlannedStages& planned) {
  ModelRef own = ref;
  if (planned.adapters.contains(ref.adapter)) own.adapter.clear();
  const auto stage = planned.models.find(ref.path);
  if (stage == planned.models.end() || !ref.revision.empty()) {
    SKEIN_ASSIGN(auto source, open_source(env, own, beside, room));
    source->ref = ref;
    return source;
  }
  auto source = make_planned_source(ref, stage->second);
  if (!own.adapter.empty()) {
    SKEIN_ASSIGN(source->adapter_folder, resolve_model_path(env, own.adapter, own.adapter_revision, beside));
  }
  return source;
}

}  // namespace

Result<std::vector<std::unique_ptr<Source>>> open_inputs(Env& env, const Recipe& recipe, const PlannedStages& planned) {
  std::vector<std::unique_ptr<Source>> sources;
  const auto room = std::make_shared<PrefetchRoom>();
  for (const ModelRef& ref : recipe.models()) {
    SKEIN_ASSIGN(auto source, open_model(env, ref, parent_folder(recipe.path), room, planned));
    if (!source->adapter_folder.empty()) {
      SKEIN_ASSIGN(source, with_adapter(env, std::move(source)));
      source->room = room;
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

Result<std::unique_ptr<InputAlignment>> InputAlignment::make(Env& env, const Recipe& recipe,
                                                             const std::vector<std::unique_ptr<Source>>& sources,
                                                             bool truncate_embeddings) {
  auto alignment = std::make_unique<InputAlignment>();
  alignment->recipe_ = &recipe;
  alignment->truncate_ = truncate_embeddings;
  for (const auto& source : sources) alignment->sources_.push_back(source.get());
  if (!recipe.tokenizer) return alignment;
  std::vector<VocabularyInput> inputs;
  for (const auto& source : sources) {
    const std::int64_t num_rows = embedding_rows_of(*source);
    if (num_rows <= 0) {
      return Error{concat(source->folder,
                          ": no tensor is known as its embedding and its config.json has no vocab_size; "
                          "the recipe's tokenizer key needs one of them")};
    }
    inputs.push_back({.ref = source->ref, .folder = source->folder, .num_rows = num_rows});
  }
  SKEIN_ASSIGN(alignment->vocabulary_,
               merge_vocabularies(env, *recipe.tokenizer, inputs, index_of_base(recipe), recipe.path));
  return alignment;
}

Status InputAlignment::adjust(OutputTensor& tensor) const {
  if (!has_row_per_token(tensor.name)) return {};
  return vocabulary_ ? align(tensor) : cut_or_refuse(tensor);
}

Status InputAlignment::align(OutputTensor& tensor) const {
  std::vector<std::shared_ptr<const TensorReader>> readers;  // by source; null: lacks the tensor
  for (const Source* source : sources_) readers.push_back(source->find(tensor.name));
  const auto place = [&](std::shared_ptr<const TensorReader>& reader, int source_idx) { readers[source_idx] = reader; };
  for (std::size_t at = 0; at < tensor.models.size(); ++at) place(tensor.models[at], tensor.model_sources[at]);
  if (tensor.base != nullptr) place(tensor.base, tensor.base_source);

  const Shape* first = nullptr;
  for (std::size_t source = 0; source < readers.size(); ++source) {
    if (readers[source] == nullptr) continue;
    const Shape& shape = readers[source]->shape();
    if (first == nullptr) first = &shape;
    if (shape.empty() || !std::equal(shape.begin() + 1, shape.end(), first->begin() + 1, first->end())) {
      return Error{concat("tensor ", printable(tensor.name), " is ", to_string(shape), " in ",
                          sources_[source]->ref.text(), " and ", to_string(*first),
                          " in another model; only the number of rows may differ")};
    }
  }
  const auto realign = [&](std::shared_ptr<const TensorReader>& reader, int source) -> Status {
    const RowMap& map = vocabulary_->maps[source];
    if (map.is_identity(source, reader->shape()[0])) return {};
    const auto check = [&](int owner, std::int64_t end) -> Status {
      if (readers[owner] == nullptr) {
        return Error{concat("tensor ", printable(tensor.name), ": rows are to come from ", sources_[owner]->ref.text(),
                            ", which lacks this tensor")};
      }
      if (end <= readers[owner]->shape()[0]) return {};
      return Error{concat("tensor ", printable(tensor.name), " has ", readers[owner]->shape()[0], " rows in ",
                          sources_[owner]->ref.text(), ", whose embedding has more; both need a row for each token")};
    };
    for (const RowRun& run : map.runs) {
      if (run.kind == RowRun::Kind::kCopy) SKEIN_TRY(check(run.model, run.source + run.count));
    }
    for (const auto& owners : map.means) {
      for (const RowAt& owner : owners) SKEIN_TRY(check(owner.model, owner.row + 1));
    }
    reader = make_row_reader(map, readers, source);
    return {};
  };
  for (std::size_t at = 0; at < tensor.models.size(); ++at) {
    SKEIN_TRY(realign(tensor.models[at], tensor.model_sources[at]));
  }
  return tensor.base == nullptr ? Status() : realign(tensor.base, tensor.base_source);
}

Status InputAlignment::cut_or_refuse(OutputTensor& tensor) const {
  std::vector<std::pair<std::shared_ptr<const TensorReader>*, int>> readers;
  for (std::size_t at = 0; at < tensor.models.size(); ++at)
    readers.emplace_back(&tensor.models[at], tensor.model_sources[at]);
  if (tensor.base != nullptr) readers.emplace_back(&tensor.base, tensor.base_source);
  std::int64_t fewest = -1;
  bool differ = false;
  std::string sizes;
  for (const auto& [reader, source] : readers) {
    if ((*reader)->shape().empty()) return {};
    const std::int64_t rows = (*reader)->shape()[0];
    differ = differ || (fewest >= 0 && rows != fewest);
    fewest = fewest < 0 ? rows : std::min(fewest, rows);
    sizes += concat(sizes.empty() ? "" : ", ", rows, " in ", sources_[source]->ref.text());
  }
  if (!differ) return {};
  if (!truncate_) {
    return Error{concat(recipe_->path, ": ", printable(tensor.name), " has ", sizes,
                        " rows; vocabularies of different sizes merge with a tokenizer key: `tokenizer_source: base` "
                        "keeps the base's tokens, `tokenizer_source: union` all of them")};
  }
  for (const auto& [reader, source] : readers) {
    if ((*reader)->shape()[0] == fewest) continue;
    std::vector<std::shared_ptr<const TensorReader>> own(source + 1);
    own[source] = *reader;
    *reader = make_row_reader(first_rows(source, fewest), std::move(own), source);
  }
  return {};
}

}  // namespace skein::merge
