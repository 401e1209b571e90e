// skein convert: models and experts in other layouts to the ones Skein reads and others load.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/base/result.h"
#include "skein/cli/common_options.h"
#include "skein/cli/result_output.h"
#include "skein/cli/verbs.h"
#include "skein/io/output_folder.h"
#include "skein/io/safetensors.h"
#include "skein/io/torch_archive.h"
#include "skein/spec/base_model.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/foreign_checkpoints.h"
#include "skein/spec/gguf_export.h"
#include "skein/spec/tensor_names.h"
#include "skein/text/gguf_export.h"
#include "skein/text/tokenizer.h"

namespace skein {
namespace {

struct ConvertOptions {
  std::string in;
  std::string out;
  std::string dtype;  // empty: the default of what is written
  std::string base;   // of the experts in an archive
  ForeignOptions foreign;
  bool overwrite = false;
  CommonOptions common;
};

// Tensors in the table's order, one at a time, so that memory holds one of them. A tied head is left out, as
// transformers does.
Status write_weights(Env& env, const BaseModel& base, DType dtype, const std::string& path) {
  std::vector<TensorPlan> plan;
  std::int64_t num_bytes = 0;
  for (const TensorName& tensor : tensor_names(base.config)) {
    if (tensor.role == TensorRole::kHead && base.config.tied_embeddings) continue;
    plan.push_back({tensor.name, dtype, tensor.shape});
    num_bytes += checked_numel(tensor.shape).value_or(0) * dtype_size(dtype);
  }
  SKEIN_ASSIGN(auto writer, SafetensorsWriter::create(env, path, plan, {{"format", "pt"}}));
  Progress progress("converting", num_bytes >> 20, "MiB");
  std::vector<std::byte> bytes;
  std::int64_t num_written = 0;
  for (const TensorPlan& tensor : plan) {
    if (interrupted()) return Error{"interrupted; nothing was written", ErrorKind::kInterrupted};
    bytes.resize(static_cast<std::size_t>(checked_numel(tensor.shape).value_or(0) * dtype_size(dtype)));
    SKEIN_TRY(base.weights->read(tensor.name, dtype, bytes));
    SKEIN_TRY(writer->append(bytes));
    num_written += static_cast<std::int64_t>(bytes.size());
    progress.update(num_written >> 20, tensor.name);
  }
  return writer->finish();
}

Status write_json(Env& env, const std::string& path, const Json& json) {
  return write_text_atomically(env, path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Status convert_gguf(Env& env, const ConvertOptions& options) {
  SKEIN_ASSIGN(const BaseModel base, open_base_model(env, options.in));
  SKEIN_ASSIGN(const auto file, GgufFile::open(env, options.in));
  SKEIN_ASSIGN(const auto tokenizer_files, hugging_face_tokenizer_files(*file));
  SKEIN_ASSIGN(auto folder, OutputFolder::begin(env, options.out, options.overwrite));
  const auto path_of = [&](const std::string& name) { return join_path(folder->path(), name); };

  const bool bf16 = options.dtype == "bf16";
  if (!bf16 && options.dtype != "f32" && !options.dtype.empty()) {
    return Error{concat("--dtype ", options.dtype, ": a Hugging Face folder is written in f32 or bf16"),
                 ErrorKind::kUsage};
  }
  SKEIN_TRY(write_weights(env, base, bf16 ? DType::kBF16 : DType::kF32, path_of("model.safetensors")));
  SKEIN_TRY(write_json(env, path_of("config.json"), config_to_json(base.config, bf16 ? "bfloat16" : "float32")));
  for (const auto& [name, content] : tokenizer_files) SKEIN_TRY(write_text_atomically(env, path_of(name), content));
  return folder->commit();
}

GgmlType gguf_type(const std::string& dtype) {
  if (dtype == "f32") return GgmlType::kF32;
  if (dtype == "f16") return GgmlType::kF16;
  return dtype == "q8_0" ? GgmlType::kQ8_0 : GgmlType::kBF16;
}

Status convert_to_gguf(Env& env, const ConvertOptions& options) {
  if (env.exists(options.out) && !options.overwrite) {
    return Error{concat(options.out, " exists; --overwrite replaces it"), ErrorKind::kUsage};
  }
  SKEIN_ASSIGN(const BaseModel base, open_base_model(env, options.in));
  SKEIN_ASSIGN(const GgufVocabulary vocabulary, gguf_vocabulary_of(env, options.in));
  GgufMetadata metadata;
  metadata.add_text("general.name", base_name(options.in));
  SKEIN_TRY(add_vocabulary(vocabulary, base.config.vocabulary_size, metadata));
  std::int64_t num_elements = 0;
  for (const TensorName& tensor : tensor_names(base.config)) num_elements += checked_numel(tensor.shape).value_or(0);
  const GgmlType type = gguf_type(options.dtype);
  const GgmlBlock block = ggml_block(type);
  Progress progress("converting", num_elements / block.elements * block.bytes >> 20, "MiB");
  return write_gguf(env, options.out, base, type, std::move(metadata),
                    [&](std::int64_t num_written, const std::string& tensor) {
                      progress.update(num_written >> 20, tensor);
                      return !interrupted();
                    });
}

// One folder per expert under OUT, all or none of them.
Result<std::vector<std::string>> convert_archive(Env& env, const ConvertOptions& options) {
  if (options.base.empty()) {
    return Error{concat(options.in, " holds experts; name the base that they belong to with --base"),
                 ErrorKind::kUsage};
  }
  SKEIN_ASSIGN(const BaseModel base, open_base_model(env, options.base));
  const std::vector<SlotName> slots = slot_names(base.config);
  SKEIN_ASSIGN(const auto archive, TorchArchive::open(env, options.in));
  SKEIN_ASSIGN(auto experts, experts_of_archive(*archive, slots, options.foreign));
  SKEIN_ASSIGN(auto folder, OutputFolder::begin(env, options.out, options.overwrite));
  std::vector<std::string> names;
  for (ForeignExpert& expert : experts) {
    if (!is_safe_file_name(expert.name)) {
      return Error{
          concat(options.in, " names an expert '", printable(expert.name), "', which is no file name; give --names")};
    }
    const std::string path = join_path(folder->path(), expert.name);
    SKEIN_TRY(env.make_folders(path));
    expert.adapter.config.base_model_name_or_path = options.base;
    SKEIN_TRY(write_lora_adapter(env, path, expert.adapter, slots));
    if (expert.gate) SKEIN_TRY(write_gate(env, path, *expert.gate, slots));
    SKEIN_TRY(write_card(env, path, {{"converted_from", base_name(options.in)}}));
    names.push_back(expert.name);
  }
  SKEIN_TRY(folder->commit());
  return names;
}

int convert(const ConvertOptions& options) {
  apply_common_options(options.common);
  Json result = {{"out", options.out}};
  if (options.out.ends_with(".gguf")) {
    or_throw(convert_to_gguf(real_env(), options));
    result["dtype"] = ggml_type_name(gguf_type(options.dtype));
    log_info(concat("wrote ", options.out, "; it is a BASE for every command, and llama.cpp loads it"));
  } else if (options.in.ends_with(".gguf")) {
    or_throw(convert_gguf(real_env(), options));
    result["dtype"] = options.dtype.empty() ? "f32" : options.dtype;
    log_info(concat("wrote ", options.out, ", a Hugging Face folder in ", result["dtype"].get<std::string>(),
                    "; it is a BASE for every command, and transformers loads it"));
  } else {
    const std::vector<std::string> names = or_throw(convert_archive(real_env(), options));
    result["experts"] = names;
    log_info(concat("wrote ", names.size(), " experts to ", options.out, "; next: skein library add LIB ", options.out,
                    "/*"));
  }
  if (options.common.json) print_json(result);
  return 0;
}

}  // namespace

void add_convert_verb(CLI::App& program, Job& job) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App& verb = add_command(program, "convert",
                               "A GGUF file to a Hugging Face folder and back; research checkpoints to expert folders",
                               "skein convert models/smollm2.gguf models/smollm2-hf --dtype bf16\n"
                               "skein convert merged merged.gguf --dtype q8_0\n"
                               "skein convert phatgoose.pt experts --base t5-xl --names cola,sst2,mnli");
  verb.add_option("IN", options->in,
                  "A .gguf file, a Hugging Face folder (OUT ends in .gguf), or a torch.save file of r-three/phatgoose "
                  "or microsoft/mttl (read "
                  "through an allow-list, never executed)")
      ->required();
  verb.add_option("OUT", options->out, "Folder to write; or a .gguf file, as llama.cpp reads it")->required();
  verb.add_option("--dtype", options->dtype,
                  "Type of the weights written. To a folder: f32 (exactly what the file means; the default) or bf16 "
                  "(half the size). To GGUF: f32, f16, bf16 (the default) or q8_0; vectors stay f32")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}));
  verb.add_option("--base", options->base, "Experts: the base they belong to")->type_name("BASE");
  verb.add_option("--names", options->foreign.names,
                  "Experts: their names in the file's order (phatgoose's files number them)")
      ->type_name("NAME")
      ->delimiter(',');
  verb.add_option("--alpha", options->foreign.alpha,
                  "Experts: their LoRA alpha, which these files do not say (phatgoose: 1; mttl: 16)")
      ->type_name("ALPHA");
  add_overwrite_option(verb, options->overwrite);
  add_common_options(verb, options->common);
  verb.callback([&job, options] { job.run = [options] { return convert(*options); }; });
}

}  // namespace skein
