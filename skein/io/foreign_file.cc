#include "skein/io/foreign_file.h"

#include <string_view>

namespace skein {

std::string foreign_file_hint(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("PK\x03\x04")) {
    return "it is a zip archive as torch.save writes, a pickle inside; turn it into safetensors with `skein convert IN "
           "OUT`";
  }
  // Opcode PROTO and a version from 2 to 5.
  if (text.size() > 1 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) {
    return "it is a bare Python pickle, which can run code when loaded; torch.save a state_dict and turn that into "
           "safetensors with `skein convert IN OUT`";
  }
  if (text.starts_with("GGUF")) return "it is a GGUF file; give it a name that ends in .gguf";
  if (text.starts_with("version https://git-lfs"))
    return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`";
  if (text.starts_with("<!DOCTYPE") || text.starts_with("<html")) return "it is a web page; was the download refused?";
  return "";
}

}  // namespace skein
