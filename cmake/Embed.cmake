# skein_embed(SOURCES FILE STEM CONSTANT)
#   Appends to the list SOURCES a generated source STEM.cc that holds the file's bytes as skein::CONSTANT, with their
#   number as CONSTANTSize.
function(skein_embed sources file stem constant)
  set(out ${CMAKE_BINARY_DIR}/generated/skein/embedded/${stem}.cc)
  set(script ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
  add_custom_command(OUTPUT ${out} DEPENDS ${file} ${script}
    COMMAND ${CMAKE_COMMAND} -DTEXT=${file} -DNAME=${constant} -DOUT=${out} -P ${script})
  set(${sources} ${${sources}} ${out} PARENT_SCOPE)
endfunction()
