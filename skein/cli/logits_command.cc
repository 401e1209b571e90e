// skein logits: next-token scores as a safetensors file.
#include <CLI/CLI.hpp>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/verbs.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

struct LogitsFlags {
  ModelFlags model;
  CommonOptions common;
  std::string input, target;
  std::vector<TokenId> input_ids, target_ids;
  std::string out;
  bool overwrite = false;
};

constexpr std::int64_t kRowsAtOnce =
    256;  // f32 logits in memory at a time: 256 rows of a vocabulary of 262,144 are 268 MB

void check_ids(const std::vector<TokenId>& ids, const BackboneConfig& config, const char* option) {
  for (const TokenId id : ids) {
    if (id < 0 || id >= config.vocabulary_size) {
      throw Failure({concat(option, " holds ", id, "; the base's vocabulary has ids 0 to ", config.vocabulary_size - 1),
                     ErrorKind::kUsage});
    }
  }
}

// (T, D) of the input for a decoder-only base, of the target for an encoder-decoder.
at::Tensor hidden_states(const LoadedModel& model, const std::vector<TokenId>& input,
                         const std::vector<TokenId>& target) {
  ForwardState state = model.new_state();
  // Routers that read texts are told of ids too.
  const auto hint = model.hint_of(Example{.input = model.tokenizer->decode(input, /*skip_special=*/true)});
  const Backbone& backbone = *model.backbone;
  const c10::Device device = backbone.compute().device;
  if (!model.base.config.is_encoder_decoder())
    return backbone.forward(pack({{.tokens = input, .hint = hint}}, device), nullptr, state);
  // The decoder reads the target shifted right by the start token, so that row t scores target token t.
  std::vector<TokenId> shifted = {static_cast<TokenId>(model.base.config.decoder_start_token)};
  shifted.insert(shifted.end(), target.begin(), target.end() - 1);
  const EncodedSource source = backbone.encode(pack({{.tokens = input, .hint = hint}}, device), state);
  return backbone.forward(pack({{.tokens = shifted, .source = 0, .hint = hint}}, device), &source, state);
}

void write_logits(const LoadedModel& model, const at::Tensor& hidden, const std::string& path) {
  const std::int64_t num_rows = hidden.size(0);
  auto writer = or_throw(SafetensorsWriter::create(
      real_env(), path, {{"logits", DType::kF32, {num_rows, model.base.config.vocabulary_size}}}, {}));
  for (std::int64_t row = 0; row < num_rows; row += kRowsAtOnce) {
    if (interrupted()) throw Failure({concat("interrupted; ", path, " was not written"), ErrorKind::kInterrupted});
    const at::Tensor part = hidden.narrow(0, row, std::min(kRowsAtOnce, num_rows - row));
    const at::Tensor logits = model.backbone->logits(part).to(at::kCPU, at::kFloat).contiguous();  // (n, V)
    or_throw(writer->append(view_of(logits).bytes));
  }
  or_throw(writer->finish());
}

int logits(LogitsFlags& flags) {
  const ModelOptions options = model_options(flags.model, flags.common);
  if (flags.input.empty() == flags.input_ids.empty())
    throw Failure({"give either --input or --input-ids", ErrorKind::kUsage});
  refuse_existing(flags.out, flags.overwrite);
  const LoadedModel model = load_model(real_env(), options);
  const c10::InferenceMode inference;
  const BackboneConfig& config = model.base.config;
  std::vector<TokenId> input = flags.input_ids, target = flags.target_ids;
  if (input.empty()) input = model.tokenizer->encode(flags.input);
  if (target.empty() && !flags.target.empty()) target = model.tokenizer->encode(flags.target);
  check_ids(input, config, "--input-ids");
  check_ids(target, config, "--target-ids");
  if (config.is_encoder_decoder() && target.empty()) {
    throw Failure({concat(flags.model.base,
                          " is an encoder-decoder, whose logits are of a target; give --target or --target-ids"),
                   ErrorKind::kUsage});
  }
  if (!config.is_encoder_decoder() && !target.empty()) {
    throw Failure({concat(flags.model.base, " has no encoder; put the whole text into --input or --input-ids"),
                   ErrorKind::kUsage});
  }
  if (!config.is_encoder_decoder() && static_cast<std::int64_t>(input.size()) > config.max_positions) {
    throw Failure(
        {concat("the input has ", input.size(), " tokens; ", flags.model.base, " reads ", config.max_positions)});
  }
  const at::Tensor hidden = hidden_states(model, input, target);
  write_logits(model, hidden, flags.out);
  const Json shape = {hidden.size(0), config.vocabulary_size};
  const Json pages = report_expert_pages(model);
  if (flags.common.json) {
    Json result = {{"out", flags.out}, {"shape", shape}, {"input_ids", input}, {"target_ids", target}};
    if (!pages.is_null()) result["expert_pages"] = pages;
    print_json(result);
  }
  log_info(concat("wrote ", flags.out, ", logits ", json_line(shape), " in f32"));
  return 0;
}

}  // namespace

void add_logits_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App& verb = add_command(
      program, "logits", "Next-token scores as a file: the f32 tensor `logits` (tokens, vocabulary)",
      "skein logits --base models/smollm2.gguf --input 'The capital of France is' --out logits.safetensors\n"
      "skein logits --base t5 --input-ids 37,1784,1 --target-ids 3,9,1 --out logits.safetensors");
  verb.add_option("--input", flags->input, "Text, encoded with the tokenizer's own special tokens")->type_name("TEXT");
  verb.add_option("--target", flags->target, "Encoder-decoders: the text whose tokens are scored")->type_name("TEXT");
  verb.add_option("--input-ids", flags->input_ids, "Token ids, taken as they are")->type_name("IDS")->delimiter(',');
  verb.add_option("--target-ids", flags->target_ids, "Token ids, taken as they are")->type_name("IDS")->delimiter(',');
  verb.add_option("--out", flags->out, "File to write")->type_name("FILE")->required();
  add_overwrite_option(verb, flags->overwrite);
  add_model_flags(verb, flags->model);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return logits(*flags); }; });
}

}  // namespace skein
