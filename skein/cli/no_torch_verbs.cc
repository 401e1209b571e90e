// Stands in for the verbs that need libtorch in a build without it: they exist, and say what is missing.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/result.h"
#include "skein/cli/bench_verbs.h"
#include "skein/cli/build_facts.h"
#include "skein/cli/capture_check.h"
#include "skein/cli/common_options.h"
#include "skein/cli/verbs.h"

namespace skein {
namespace {

constexpr char kWayOut[] = "; configure it with -DSKEIN_BUILD_TORCH=ON after tools/setup.sh, or with SKEIN_TORCH=DIR";

void add_missing(CLI::App& program, Job& job, const std::string& name, const std::string& summary) {
  CLI::App& verb = add_command(program, name, summary + " (needs libtorch, not in this build)", "");
  verb.allow_extras();
  verb.callback([&job, name] {
    job.run = [name]() -> int {
      throw Failure({concat("skein ", name, " needs libtorch, and this skein was built without it", kWayOut)});
    };
  });
}

}  // namespace

void add_generate_verb(CLI::App& program, Job& job) { add_missing(program, job, "generate", "Write text"); }
void add_logits_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "logits", "Next-token scores as a file");
}
void add_train_verb(CLI::App& program, Job& job) { add_missing(program, job, "train", "Train experts and gates"); }
void add_trace_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "trace", "Which expert each token chose");
}
void add_eval_verb(CLI::App& program, Job& job) { add_missing(program, job, "eval", "Accuracy on tasks"); }
void add_compare_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "compare", "Methods side by side on tasks");
}
void add_extract_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "extract", "A full fine-tune as an expert");
}
void add_gates_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "gates", "Gates for experts that came without");
}
void add_distill_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "distill", "A routed pool as one adapter");
}

void add_train_bench(CLI::App& bench, Job& job) { add_missing(bench, job, "train", "Training beside PEFT"); }
void add_serve_bench(CLI::App& bench, Job& job) { add_missing(bench, job, "serve", "Serving under load"); }
void add_serve_verb(CLI::App& program, Job& job) {
  add_missing(program, job, "serve", "A base and its experts behind OpenAI's API");
}

std::string torch_facts() { return "without torch"; }

int capture_check(const CaptureOptions&) {
  throw Failure({concat(
      "library check --capture runs the model and needs libtorch, and this skein was built without it", kWayOut)});
}

}  // namespace skein
