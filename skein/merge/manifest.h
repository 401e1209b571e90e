// skein_merge.json of a finished merge: what it was made of, and digests by which it can be checked again.
// Format: docs/formats/merge-manifest.md. Nothing in it depends on time, threads, ranks or this machine's paths.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/merge/executor.h"
#include "skein/merge/plan.h"

namespace skein::merge {

inline constexpr char kManifestName[] = "skein_merge.json";

// records: one per tensor of the plan. Digests the other files of `folder` too.
Result<Json> make_manifest(Env& env, const std::string& folder, const Plan& plan, const std::string& recipe_text,
                           const std::vector<TensorRecord>& records, const std::string& version);
// Of a merged adapter in `folder`: no tensors, all files with digests. adapters: as the recipe names them, with the
// digests of their weights.
Result<Json> make_adapter_manifest(Env& env, const std::string& folder, const Recipe& recipe,
                                   const std::string& recipe_text, std::uint64_t seed, const std::string& plan_digest,
                                   const std::vector<std::pair<std::string, std::string>>& adapters,
                                   const std::string& version);
// The digest of the plan that a finished folder was made by; empty if it is none of ours.
std::string plan_digest_of(Env& env, const std::string& folder);
// That of all stages, of the result of several (stages.h); empty if it is none.
std::string stages_digest_of(Env& env, const std::string& folder);

// Tensors and files of a finished output that are not as its manifest says, as sentences; empty: all as written.
struct VerifyReport {
  std::size_t num_tensors = 0;
  std::uint64_t num_bytes = 0;
  std::vector<std::string> differences;
};
Result<VerifyReport> verify_output(Env& env, const std::string& folder);

// Whether these bytes have the digest that was recorded.
Result<bool> has_digest(const ReadableFile& file, std::uint64_t offset, std::uint64_t num_bytes,
                        const std::string& digest, std::int64_t piece_bytes);

}  // namespace skein::merge
