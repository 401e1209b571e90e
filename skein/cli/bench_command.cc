// skein bench: the project's own benchmarks.
//
// To add `skein bench NAME`: write NAME_bench.cc with
//   void add_NAME_bench(CLI::App& bench, Job& job);
// which adds a command with add_command(bench, "NAME", summary, example) and leaves its work in `job`, as a verb does;
// declare it in bench_verbs.h and add a line to the table below. One that needs libtorch goes into `torch_sources` of
// CMakeLists.txt and gets its stand-in in no_torch_verbs.cc. It prints its unit and, where the peer is installed or
// named by --peer, the peer's figure on the same data in the same run: run_child() (child_run.h) times whole processes
// and knows their peak memory, bench_models.h makes models.
#include <CLI/CLI.hpp>

#include "skein/cli/bench_verbs.h"
#include "skein/cli/common_options.h"
#include "skein/cli/verbs.h"

namespace skein {
namespace {

constexpr void (*kBenches[])(CLI::App&, Job&) = {add_merge_bench, add_train_bench, add_serve_bench};

}  // namespace

void add_bench_verb(CLI::App& program, Job& job) {
  CLI::App& verb = add_command(program, "bench", "Measure this program, beside its peers where they are installed", "");
  verb.require_subcommand(1);
  for (const auto add_bench : kBenches) add_bench(verb, job);
}

}  // namespace skein
