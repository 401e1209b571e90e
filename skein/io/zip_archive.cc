#include "skein/io/zip_archive.h"

#include <zip.h>

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {

struct ZipArchive::Handle {
  zip_t* zip = nullptr;
  ~Handle() {
    if (zip != nullptr) zip_discard(zip);
  }
};

ZipArchive::~ZipArchive() = default;

Result<std::unique_ptr<ZipArchive>> ZipArchive::open(Env& env, const std::string& path) {
  std::unique_ptr<ZipArchive> archive(new ZipArchive);
  archive->path_ = path;
  SKEIN_ASSIGN(archive->map_, env.map(path));
  archive->handle_ = std::make_unique<Handle>();

  zip_error_t failure;
  zip_error_init(&failure);
  const auto bytes = archive->map_->bytes();
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &failure);
  if (source != nullptr) {
    archive->handle_->zip = zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &failure);
    if (archive->handle_->zip == nullptr) zip_source_free(source);
  }
  const std::string why = archive->handle_->zip == nullptr ? zip_error_strerror(&failure) : "";
  zip_error_fini(&failure);
  if (!why.empty()) return Error{concat(path, " cannot be read as a zip archive: ", why, "; was it cut short?")};

  const zip_int64_t count = zip_get_num_entries(archive->handle_->zip, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* name = zip_get_name(archive->handle_->zip, static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
    if (name == nullptr) return Error{concat(path, ": member ", i, " of the zip archive has no name")};
    archive->names_.emplace_back(name);
  }
  auto sorted = archive->names_;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end())
    return Error{concat(path, ": member \"", printable(*twice), "\" stands twice in the zip archive")};
  return archive;
}

bool ZipArchive::contains(const std::string& name) const {
  return zip_name_locate(handle_->zip, name.c_str(), ZIP_FL_ENC_RAW) >= 0;
}

Result<std::vector<std::byte>> ZipArchive::read(const std::string& name) const {
  const auto fault = [&](const std::string& what) {
    return Error{concat(path_, ": member \"", printable(name), "\" of the zip archive ", what)};
  };
  const zip_int64_t index = zip_name_locate(handle_->zip, name.c_str(), ZIP_FL_ENC_RAW);
  if (index < 0) return fault("is missing");
  zip_stat_t facts;
  zip_stat_init(&facts);
  const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if (zip_stat_index(handle_->zip, static_cast<zip_uint64_t>(index), 0, &facts) != 0 ||
      (facts.valid & needed) != needed) {
    return fault("is damaged");
  }
  if (facts.comp_method != ZIP_CM_STORE || facts.encryption_method != ZIP_EM_NONE) {
    return fault("is compressed or encrypted; torch.save stores plain bytes");
  }
  if (facts.size > file_size()) return fault("claims more bytes than the file has");
  std::vector<std::byte> bytes(facts.size);
  zip_file_t* file = zip_fopen_index(handle_->zip, static_cast<zip_uint64_t>(index), 0);
  if (file == nullptr) return fault(concat("cannot be read: ", zip_strerror(handle_->zip)));
  const zip_int64_t got = zip_fread(file, bytes.data(), bytes.size());
  std::byte beyond;
  const bool complete = got == static_cast<zip_int64_t>(bytes.size()) && zip_fread(file, &beyond, 1) == 0;
  const std::string why = complete ? "" : zip_file_strerror(file);
  zip_fclose(file);
  if (!complete) return fault(concat("is damaged: ", why));
  return bytes;
}

}  // namespace skein
