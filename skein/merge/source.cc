#include "skein/merge/source.h"

#include <algorithm>
#include <cstring>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/io/safetensors.h"

namespace skein::merge {
namespace {

// The header of a safetensors file; of any other file its first bytes.
Result<std::string> digest_of_header(const ReadableFile& file) {
  constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
  std::uint64_t length = 0;
  if (file.size() >= sizeof(length)) SKEIN_TRY(file.read_at(0, std::as_writable_bytes(std::span(&length, 1))));
  const std::uint64_t wanted = length > kMaxHeaderBytes ? 4096 : sizeof(length) + length;
  std::vector<std::byte> header(std::min(file.size(), wanted));
  SKEIN_TRY(file.read_at(0, header));
  Digest digest;
  digest.update(header);
  return digest.hex();
}

class FolderSource : public Source {
 public:
  Status open(Env& env) {
    SKEIN_ASSIGN(const FileFacts facts, env.facts(folder));
    if (!facts.is_folder) {
      return Error{concat(folder, " is a file; a model folder was expected",
                          folder.ends_with(".gguf") ? " (skein convert makes one of a GGUF file)" : "")};
    }
    const std::string config_path = join_path(folder, "config.json");
    config = Json::object();
    if (env.exists(config_path)) {
      SKEIN_ASSIGN(config, read_json_file(env, config_path));
      if (!config.is_object()) return Error{concat(config_path, ": an object was expected")};
    }
    SKEIN_ASSIGN(weights_, open_safetensors_folder(env, folder));
    for (const auto& info : weights_->tensors()) {
      const auto location = weights_->location(info.name);
      SKEIN_CHECK(location.has_value());
      SKEIN_ASSIGN(const ReadableFile* file, file_at(env, location->file));
      names_.push_back(info.name);
      readers_.emplace(info.name, make_file_reader(*file, location->offset, info.dtype, info.shape));
    }
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
    return {};
  }

  const std::vector<std::string>& names() const override { return names_; }
  std::shared_ptr<const TensorReader> find(const std::string& name) const override {
    const auto found = readers_.find(name);
    return found == readers_.end() ? nullptr : found->second;
  }

 private:
  Result<const ReadableFile*> file_at(Env& env, const std::string& path) {
    const auto found = opened_.find(path);
    if (found != opened_.end()) return static_cast<const ReadableFile*>(found->second.get());
    SKEIN_ASSIGN(auto file, env.open(path));
    SKEIN_ASSIGN(InputFile input, describe_input_file(env, path, *file));
    files.push_back(std::move(input));
    if (room != nullptr && &env == &real_env()) file = room->wrap(std::move(file), path);
    const ReadableFile* raw = file.get();
    opened_.emplace(path, std::move(file));
    return raw;
  }

  std::unique_ptr<Checkpoint> weights_;
  std::map<std::string, std::unique_ptr<ReadableFile>> opened_;
  std::vector<std::string> names_;
  std::map<std::string, std::shared_ptr<const TensorReader>> readers_;
};

}  // namespace

Result<std::unique_ptr<Source>> open_source(Env& env, const ModelRef& ref, const std::string& beside,
                                            std::shared_ptr<PrefetchRoom> room) {
  auto source = std::make_unique<FolderSource>();
  source->room = std::move(room);
  source->ref = ref;
  SKEIN_ASSIGN(source->folder, resolve_model_path(env, ref.path, ref.revision, beside));
  if (!ref.adapter.empty()) {
    SKEIN_ASSIGN(source->adapter_folder, resolve_model_path(env, ref.adapter, ref.adapter_revision, beside));
  }
  SKEIN_TRY(source->open(env));
  return std::unique_ptr<Source>(std::move(source));
}

Result<InputFile> describe_input_file(Env& env, const std::string& path, const ReadableFile& file) {
  InputFile input;
  input.path = path;
  SKEIN_ASSIGN(input.facts, env.facts(path));
  if (file.size() != input.facts.size_bytes) return Error{concat(path, " changed while it was being opened")};
  SKEIN_ASSIGN(input.header_digest, digest_of_header(file));
  return input;
}

Status check_unchanged(Env& env, const std::vector<InputFile>& files) {
  for (const auto& [path, before, header_digest] : files) {
    const auto refuse = [&](const std::string& what) {
      return Error{concat(path, " is not the file that the merge was planned for: ", what,
                          "; begin again, with its present content")};
    };
    SKEIN_ASSIGN(const FileFacts now, env.facts(path));
    if (now.size_bytes != before.size_bytes) {
      return refuse(concat("it had ", before.size_bytes, " bytes and has ", now.size_bytes));
    }
    if (now.inode != before.inode) return refuse("another file has its name");
    if (now.modified_ns != before.modified_ns) return refuse("it was written to");
    SKEIN_ASSIGN(const auto file, env.open(path));
    SKEIN_ASSIGN(const std::string digest, digest_of_header(*file));
    if (digest != header_digest) return refuse("its header differs");
  }
  return {};
}

}  // namespace skein::merge
