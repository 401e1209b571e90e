// Ctrl-C and SIGTERM: the first asks long work to stop at its next safe point, the second ends the process at once.
#pragma once

namespace skein {

// Installs the handlers; called once by main.
void catch_interrupts();
// True after the first signal. Long loops ask between steps, save what can be resumed, and return ErrorKind::kInterrupted.
bool interrupted();

}  // namespace skein
