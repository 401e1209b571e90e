# cmake -DTEXT=FILE -DNAME=kName -DOUT=FILE -P embed_text.cmake: a source with the text as a constant.
file(READ ${TEXT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUT} "#include <cstddef>\nnamespace skein {\nextern const unsigned char ${NAME}[];\nextern const std::size_t ${NAME}Size;\n"
  "const unsigned char ${NAME}[] = {${bytes}0};\nconst std::size_t ${NAME}Size = sizeof ${NAME} - 1;\n}  // namespace skein\n")
