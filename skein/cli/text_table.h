// Tables on the terminal: aligned by display width, numbers to the right, plain when piped.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace skein {

// Columns of the terminal behind stdout; 100 when there is none.
std::size_t terminal_width();
// Whether to use bold and colour on a stream: a terminal, and NO_COLOR unset.
bool is_styled(std::FILE* stream);
// Columns that UTF-8 text takes on a terminal (wide characters two, combining ones none).
std::size_t display_width(std::string_view text);
// At most `columns` wide, cut with an ellipsis.
std::string shortened(std::string_view text, std::size_t columns);
// "12.3", "0.667": fixed digits after the point; "-" for NaN.
std::string fixed(double value, int digits);
// 1234567 -> "1,234,567".
std::string grouped(std::int64_t value);

class TextTable {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kRight;
  };
  struct Cell {
    Cell(std::string text, bool bold = false) : text(std::move(text)), bold(bold) {}  // NOLINT: implicit on purpose
    Cell(const char* text) : text(text) {}                                            // NOLINT: implicit on purpose
    std::string text;
    bool bold = false;
  };

  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // One cell per column.
  void add_row(std::vector<Cell> cells);
  std::string render(bool styled) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace skein
