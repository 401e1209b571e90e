# cmake -DSOURCE=DIR -DOUT=FILE -P git_hash.cmake: a header with the commit, or an empty string outside git.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=10 --exclude=*
  OUTPUT_VARIABLE hash OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define SKEIN_GIT_HASH \"${hash}\"\n" @ONLY)
