// The identity of a base: a digest of what it computes with, whatever file holds it.
#include <cstdlib>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/spec/base_model.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return join_path(cache, "skein/fingerprints");
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? join_path(home, ".cache/skein/fingerprints") : "";
}

// Names the cache entry: which files, as they are now, read by which table. Empty if the facts cannot be had.
std::string cache_key(Env& env, const BaseModel& base) {
  Digest digest;
  digest.update(std::string("fingerprint 1"));
  const auto add_file = [&](const std::string& path) {
    const Result<FileFacts> facts = env.facts(path);
    if (!facts.ok()) return false;
    digest.update(concat(path, "\n", facts->size_bytes, "\n", facts->modified_ns, "\n", facts->inode));
    return true;
  };
  const Result<FileFacts> facts = env.facts(base.path);
  if (!facts.ok()) return "";
  if (!facts->is_folder) {
    if (!add_file(base.path)) return "";
  } else {
    const auto names = env.list(base.path);
    if (!names.ok()) return "";
    for (const std::string& name : *names) {
      if (name.ends_with(".safetensors") && !add_file(join_path(base.path, name))) return "";
    }
  }
  for (const TensorName& name : tensor_names(base.config)) digest.update(concat(name.name, to_string(name.shape)));
  return digest.hex();
}

bool is_digest(const std::string& text) {
  return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<std::string> compute(const BaseModel& base) {
  Digest digest;
  std::vector<std::byte> values;
  for (const TensorName& name : tensor_names(base.config)) {
    digest.update(name.name);
    digest.update(to_string(name.shape));
    const std::optional<TensorView> view = base.weights->view(name.name);
    if (view && view->dtype == DType::kBF16) {
      digest.update(view->bytes);
      continue;
    }
    values.resize(static_cast<std::size_t>(checked_numel(name.shape).value() * 2));
    SKEIN_TRY(base.weights->read(name.name, DType::kBF16, values));
    digest.update(std::span<const std::byte>(values));
  }
  return digest.hex();
}

}  // namespace

Result<std::string> base_fingerprint(Env& env, const BaseModel& base) {
  const std::string folder = cache_folder();
  const std::string key = folder.empty() ? "" : cache_key(env, base);
  const std::string entry = key.empty() ? "" : join_path(folder, key);
  if (!entry.empty() && env.exists(entry)) {
    const Result<std::string> cached = read_text_file(env, entry, 64);
    if (cached.ok() && is_digest(*cached)) return *cached;
  }
  SKEIN_ASSIGN(const std::string fingerprint, compute(base));
  // The cache is a convenience: where it cannot be written, the next run computes again.
  if (!entry.empty() && env.make_folders(folder).ok()) (void)write_text_atomically(env, entry, fingerprint).ok();
  return fingerprint;
}

}  // namespace skein
