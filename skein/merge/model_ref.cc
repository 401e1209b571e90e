#include "skein/merge/model_ref.h"

#include <cstdlib>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

// "path@revision" into its halves. An "@" in a folder's name is taken for a revision only behind the last "/".
void split_revision(std::string_view text, std::string& path, std::string& revision) {
  const std::size_t at = text.rfind('@');
  const std::size_t slash = text.rfind('/');
  const bool has = at != std::string_view::npos && at > 0 && (slash == std::string_view::npos || at > slash);
  path = std::string(text.substr(0, has ? at : text.size()));
  revision = has ? std::string(text.substr(at + 1)) : std::string();
}

std::string hub_cache() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
  };
  if (const auto cache = variable("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const auto cache = variable("HUGGINGFACE_HUB_CACHE"); !cache.empty()) return cache;
  if (const auto home = variable("HF_HOME"); !home.empty()) return join_path(home, "hub");
  if (const auto home = variable("XDG_CACHE_HOME"); !home.empty()) return join_path(home, "huggingface/hub");
  return join_path(variable("HOME"), ".cache/huggingface/hub");
}

// A hub id is "name" or "owner/name" of plain words; nothing that climbs out of the cache.
bool is_hub_id(const std::string& path) {
  const std::size_t slash = path.find('/');
  if (slash == std::string::npos) return is_safe_file_name(path);
  return is_safe_file_name(path.substr(0, slash)) && is_safe_file_name(path.substr(slash + 1));
}

// The snapshot of a revision: a branch or tag that refs/ knows, or a commit.
Result<std::string> snapshot_of(Env& env, const std::string& repository, const std::string& revision,
                                const std::string& path) {
  const std::string wanted = revision.empty() ? "main" : revision;
  std::string commit = wanted;
  // Branch names may hold slashes; "refs/pr/3" does. ".." must not lead out.
  const bool climbs = wanted.find("..") != std::string::npos || wanted.starts_with('/');
  const std::string reference = join_path(join_path(repository, "refs"), wanted);
  if (!climbs && env.exists(reference)) {
    SKEIN_ASSIGN(commit, read_text_file(env, reference, 4096));
    while (!commit.empty() && static_cast<unsigned char>(commit.back()) <= ' ') commit.pop_back();
  }
  if (is_safe_file_name(commit)) {
    const std::string snapshot = join_path(join_path(repository, "snapshots"), commit);
    if (env.exists(snapshot)) return snapshot;
  }
  return Error{concat("the Hugging Face cache has ", printable(path), " in ", repository, ", but not its revision ",
                      printable(wanted), "; download it first (huggingface-cli download)")};
}

}  // namespace

std::string ModelRef::text() const {
  std::string text = path;
  if (!revision.empty()) text += "@" + revision;
  if (!adapter.empty()) text += "+" + adapter;
  if (!adapter_revision.empty()) text += "@" + adapter_revision;
  return text;
}

Result<ModelRef> parse_model_ref(std::string_view text) {
  ModelRef ref;
  const std::size_t plus = text.find('+');
  if (plus != std::string_view::npos && text.find('+', plus + 1) != std::string_view::npos) {
    return Error{concat("the model \"", printable(text), "\" has two \"+\"; model+adapter was expected")};
  }
  split_revision(text.substr(0, plus), ref.path, ref.revision);
  if (plus != std::string_view::npos) split_revision(text.substr(plus + 1), ref.adapter, ref.adapter_revision);
  if (ref.path.empty() && ref.adapter.empty()) {
    return Error{concat("\"", printable(text), "\" names no model; a folder or a hub id was expected")};
  }
  return ref;
}

Result<std::string> resolve_model_path(Env& env, const std::string& path, const std::string& revision,
                                       const std::string& beside) {
  if (revision.empty() && env.exists(path)) return path;
  if (revision.empty() && !path.starts_with('/') && env.exists(join_path(beside, path))) return join_path(beside, path);
  const std::string cache = hub_cache();
  if (is_hub_id(path)) {
    std::string flat = "models--" + path;
    if (const std::size_t slash = flat.find('/'); slash != std::string::npos) flat.replace(slash, 1, "--");
    const std::string repository = join_path(cache, flat);
    if (env.exists(repository)) return snapshot_of(env, repository, revision, path);
  }
  if (!revision.empty() && env.exists(path)) {
    return Error{
        concat(printable(path), " is a folder, which has no revisions; leave \"@", printable(revision), "\" out")};
  }
  return Error{concat("no model ", printable(path), ": no folder of that name",
                      is_hub_id(path) ? concat(", and it is not in the Hugging Face cache ", cache,
                                               "; Skein downloads nothing: huggingface-cli download ", printable(path))
                                      : std::string("; is the path right?"))};
}

}  // namespace skein::merge
