#include "skein/cli/text_table.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "skein/base/check.h"

namespace skein {
namespace {

// Calls on_character(bytes, columns) for each code point; a stray byte counts as one column.
template <typename OnCharacter>
void for_each_character(std::string_view text, const OnCharacter& on_character) {
  while (!text.empty()) {
    utf8proc_int32_t code = -1;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                         static_cast<utf8proc_ssize_t>(text.size()), &code);
    const std::size_t bytes = length > 0 ? static_cast<std::size_t>(length) : 1;
    on_character(text.substr(0, bytes), code < 0 ? std::size_t{1} : static_cast<std::size_t>(utf8proc_charwidth(code)));
    text.remove_prefix(bytes);
  }
}

}  // namespace

std::size_t terminal_width() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 100;
}

bool is_styled(std::FILE* stream) {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(fileno(stream)) != 0 && (no_color == nullptr || *no_color == '\0');
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for_each_character(text, [&](std::string_view, std::size_t columns) { width += columns; });
  return width;
}

std::string shortened(std::string_view text, std::size_t columns) {
  if (display_width(text) <= columns) return std::string(text);
  std::string out;
  std::size_t used = 1;  // the ellipsis
  bool full = false;
  for_each_character(text, [&](std::string_view character, std::size_t width) {
    full = full || used + width > columns;
    if (full) return;
    out += character;
    used += width;
  });
  return out + "…";
}

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string grouped(std::int64_t value) {
  const std::string digits = std::to_string(value);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (out.size() > (value < 0 ? 1U : 0U) && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

void TextTable::add_row(std::vector<Cell> cells) {
  SKEIN_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::render(bool styled) const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = display_width(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[c].text));
    widths.push_back(width);
  }

  std::string out;
  const auto add_line = [&](const auto& text_of, const auto& is_bold) {
    std::string line;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const std::string text = text_of(c);
      const std::string blanks(widths[c] - display_width(text), ' ');
      const std::string shown = styled && is_bold(c) ? "\x1b[1m" + text + "\x1b[0m" : text;
      if (c > 0) line += "  ";
      line += columns_[c].align == Align::kRight ? blanks + shown : shown + blanks;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };

  add_line([&](std::size_t c) { return columns_[c].title; }, [](std::size_t) { return false; });
  std::size_t total = 0;
  for (const std::size_t width : widths) total += width + 2;
  std::string rule;
  for (std::size_t i = 0; i + 2 < total; ++i) rule += "─";
  out += rule + "\n";
  for (const auto& row : rows_) {
    add_line([&](std::size_t c) { return row[c].text; }, [&](std::size_t c) { return row[c].bold; });
  }
  return out;
}

}  // namespace skein
