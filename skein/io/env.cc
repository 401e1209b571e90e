#include "skein/io/env.h"

#include "skein/base/concat.h"
#include "skein/io/atomic_file.h"

namespace skein {

std::string join_path(const std::string& folder, const std::string& name) {
  if (folder.empty() || folder == ".") return name;
  return folder.ends_with('/') ? folder + name : folder + "/" + name;
}

namespace {
std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}
}  // namespace

std::string base_name(const std::string& path) {
  const std::string trimmed = without_trailing_slashes(path);
  const std::size_t slash = trimmed.rfind('/');
  return slash == std::string::npos || trimmed == "/" ? trimmed : trimmed.substr(slash + 1);
}

std::string parent_folder(const std::string& path) {
  const std::string trimmed = without_trailing_slashes(path);
  const std::size_t slash = trimmed.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : without_trailing_slashes(trimmed.substr(0, slash));
}

bool is_safe_file_name(const std::string& name) {
  if (name.empty() || name.size() > 200 || name == "." || name == ".." || name[0] == '-') return false;
  for (const char character : name) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7f || character == '/' || character == '\\') return false;
  }
  return true;
}

Result<std::string> read_text_file(Env& env, const std::string& path, std::uint64_t max_bytes) {
  SKEIN_ASSIGN(const auto file, env.open(path));
  if (file->size() > max_bytes) {
    return Error{
        concat(path, " has ", file->size(), " bytes; at most ", max_bytes, " are read; is it the right file?")};
  }
  std::string text(file->size(), '\0');
  SKEIN_TRY(file->read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Status write_file_atomically(Env& env, const std::string& path, std::span<const std::byte> bytes) {
  SKEIN_ASSIGN(const auto file, AtomicFile::create(env, path));
  SKEIN_TRY(file->append(bytes));
  return file->commit();
}

Status write_text_atomically(Env& env, const std::string& path, const std::string& text) {
  return write_file_atomically(env, path, std::as_bytes(std::span(text)));
}

}  // namespace skein
