// Stands in for mpi_comm.cc where MPI is absent.
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "skein/base/concat.h"
#include "skein/dist/comm.h"

namespace skein {

bool has_mpi() { return false; }

Result<std::unique_ptr<Comm>> make_comm() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr) continue;
    const std::string_view text = value;
    int size = 1;
    std::from_chars(text.data(), text.data() + text.size(), size);
    if (size > 1) {
      return Error{concat("started as one of ", size, " processes (", variable,
                          "), and this skein was built without MPI; install libopenmpi-dev and build it again")};
    }
  }
  return make_single_comm();
}

}  // namespace skein
