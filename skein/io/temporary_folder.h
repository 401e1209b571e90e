// Folders for what lives no longer than its owner.
#pragma once

#include <string>

namespace skein {

// What TMPDIR names, else `otherwise`.
std::string temporary_root(const std::string& otherwise = "/tmp");

// A new, empty folder "PARENT/STEM-XXXXXX", removed with all it holds at the end of this object's life. Throws Failure
// where none can be made.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& stem = "skein", const std::string& parent = temporary_root());
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace skein
