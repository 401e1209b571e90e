#include "skein/train/thaw.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/io/gguf.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/spec/expert_folder.h"
#include "skein/text/tokenizer.h"
#include "skein/train/run_setup.h"
#include "skein/train/train_loop.h"

namespace skein {
namespace {

// Files beside the weights that a base folder needs, where they are.
constexpr const char* kFolderFiles[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "tokenizer.model",
                                        "spiece.model",
                                        "vocab.json",
                                        "merges.txt",
                                        "added_tokens.json",
                                        "chat_template.jinja",
                                        "generation_config.json"};

Status write_tokenizer(Env& env, const std::string& base, const std::string& folder) {
  if (base.ends_with(".gguf")) {
    SKEIN_ASSIGN(const auto file, GgufFile::open(env, base));
    SKEIN_ASSIGN(const auto files, hugging_face_tokenizer_files(*file));
    for (const auto& [name, content] : files) SKEIN_TRY(write_text_atomically(env, join_path(folder, name), content));
    return {};
  }
  for (const char* name : kFolderFiles) {
    const std::string from = join_path(base, name);
    if (!env.exists(from)) continue;
    SKEIN_ASSIGN(const std::string content, read_text_file(env, from));
    SKEIN_TRY(write_text_atomically(env, join_path(folder, name), content));
  }
  return {};
}

Status write_model(Env& env, const LoadedModel& model, const std::string& folder) {
  const bool bf16 = model.backbone->compute().dtype == at::kBFloat16;
  std::vector<at::Tensor> on_cpu;  // keeps the views alive
  std::vector<NamedTensor> tensors;
  for (const ModelTensor& tensor : model.backbone->tensors()) {
    at::Tensor values = tensor.owner.detach().narrow(0, tensor.first_row, tensor.num_rows);
    if (tensor.offset != 0) values = values - tensor.offset;
    on_cpu.push_back(values.to(at::kCPU, bf16 ? at::kBFloat16 : at::kFloat).contiguous());
    tensors.push_back({tensor.name, view_of(on_cpu.back())});
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  SKEIN_TRY(write_safetensors(env, join_path(folder, "model.safetensors"), tensors, {{"format", "pt"}}));
  const Json config = config_to_json(model.base.config, bf16 ? "bfloat16" : "float32");
  SKEIN_TRY(write_text_atomically(env, join_path(folder, "config.json"), config.dump(2) + "\n"));
  return write_tokenizer(env, model.base.path, folder);
}

}  // namespace

ThawedBase::ThawedBase(const Backbone& backbone) {
  std::map<const void*, bool> seen;
  for (const ModelTensor& tensor : backbone.tensors()) {
    if (std::exchange(seen[tensor.owner.unsafeGetTensorImpl()], true)) continue;
    at::Tensor owner = tensor.owner;
    owner.requires_grad_(true);
    tensors_.push_back(owner);
    names_.push_back(tensor.name);
    masters_.push_back(owner.scalar_type() == at::kFloat ? owner : owner.detach().to(at::kFloat).requires_grad_(true));
  }
}

ThawedBase::~ThawedBase() {
  for (at::Tensor& tensor : tensors_) {
    tensor.mutable_grad().reset();
    tensor.requires_grad_(false);
  }
}

std::int64_t ThawedBase::num_parameters() const {
  std::int64_t total = 0;
  for (const at::Tensor& master : masters_) total += master.numel();
  return total;
}

void ThawedBase::add_gradients() const {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].is_same(masters_[i]) || !tensors_[i].grad().defined()) continue;
    at::Tensor& sum = masters_[i].mutable_grad();
    const at::Tensor gradient = tensors_[i].grad().to(at::kFloat);
    sum = sum.defined() ? sum.add_(gradient) : gradient;
    tensors_[i].mutable_grad().reset();
  }
}

void ThawedBase::write_back() const {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].is_same(masters_[i])) tensors_[i].detach().copy_(masters_[i]);
  }
}

TrainReport train_full(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                       const std::string& out, const TrainOptions& options, bool overwrite) {
  if (model.backbone->compute().base_bits != 0) {
    throw Failure(
        {"all weights are trained, so none can be kept in few bits: leave --base-bits out", ErrorKind::kUsage});
  }
  FolderRunRequest request{"full", data, out, options, overwrite};
  request.more_identity["kind"] = "full";
  FolderRun run = begin_folder_run(env, comm, model, request);
  if (run.done) return *run.done;
  run.loop.keep_best = !options.valid.empty();  // or it would hold one more copy of the model
  TrainReport report;
  {
    const ThawedBase base(*model.backbone);
    const Trainee trainee{.parameters = base.parameters(),
                          .names = base.names(),
                          .after_backward = [&base] { base.add_gradients(); },
                          .after_update = [&base] { base.write_back(); }};
    report = run_training(env, *model.backbone, trainee, run.data.train, run.data.valid, run.loop, options);
  }
  if (report.interrupted) return report;
  end_folder_run(env, comm, model, request, run, report, Json::object(),
                 [&](const std::string& folder) { or_throw(write_model(env, model, folder)); });
  return report;
}

}  // namespace skein
