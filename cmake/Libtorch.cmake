# Finds libtorch without TorchConfig.cmake, which demands the CUDA toolkit when the wheel was built for CUDA. Skein needs
# only the headers and the shared libraries. Makes skein::torch and skein_precompile().
set(torch_hints ${SKEIN_TORCH_DIR} $ENV{SKEIN_TORCH})
file(GLOB torch_venv ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
list(APPEND torch_hints ${torch_venv})
# A virtual environment, a site-packages folder and the torch folder itself are all accepted.
set(torch_candidates "")
foreach(hint ${torch_hints})
  file(GLOB inner ${hint}/lib/python3*/site-packages/torch ${hint}/torch)
  list(APPEND torch_candidates ${hint} ${inner})
endforeach()

find_path(SKEIN_TORCH_INCLUDE ATen/ATen.h PATHS ${torch_candidates} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(SKEIN_TORCH_CPU torch_cpu PATHS ${torch_candidates} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(SKEIN_C10 c10 PATHS ${torch_candidates} PATH_SUFFIXES lib NO_DEFAULT_PATH)
if(NOT SKEIN_TORCH_INCLUDE OR NOT SKEIN_TORCH_CPU OR NOT SKEIN_C10)
  message(FATAL_ERROR "libtorch not found in: ${torch_candidates}. Run tools/setup.sh, or set SKEIN_TORCH to a libtorch "
    "or Python torch folder, or configure with -DSKEIN_BUILD_TORCH=OFF.")
endif()
get_filename_component(SKEIN_TORCH_LIB_DIR ${SKEIN_TORCH_CPU} DIRECTORY)
find_library(SKEIN_TORCH_CUDA torch_cuda PATHS ${SKEIN_TORCH_LIB_DIR} NO_DEFAULT_PATH)

set(torch_version_file ${SKEIN_TORCH_INCLUDE}/torch/headeronly/version.h)
if(NOT EXISTS ${torch_version_file})
  set(torch_version_file ${SKEIN_TORCH_INCLUDE}/torch/csrc/api/include/torch/version.h)
endif()
file(STRINGS ${torch_version_file} torch_version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" torch_version_digits "${torch_version_lines}")
string(REPLACE ";" "." SKEIN_TORCH_VERSION "${torch_version_digits}")

add_library(skein_torch INTERFACE)
target_include_directories(skein_torch SYSTEM INTERFACE
  ${SKEIN_TORCH_INCLUDE} ${SKEIN_TORCH_INCLUDE}/torch/csrc/api/include)
target_compile_definitions(skein_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
# at::parallel_for is a template of torch's headers: compiled without OpenMP it runs serially. The threads must be those of
# torch itself, so the OpenMP library is the one beside torch_cpu (the wheel's), or the compiler's where there is none.
file(GLOB torch_openmp ${SKEIN_TORCH_LIB_DIR}/libgomp*.so.1)
target_compile_options(skein_torch INTERFACE -fopenmp)
target_link_libraries(skein_torch INTERFACE ${SKEIN_TORCH_CPU} ${SKEIN_C10} ${torch_openmp})
if(NOT torch_openmp)
  target_link_options(skein_torch INTERFACE -fopenmp)
endif()
if(SKEIN_TORCH_CUDA)
  # The CUDA kernels register themselves when the library is loaded; nothing refers to it by symbol.
  find_library(SKEIN_C10_CUDA c10_cuda PATHS ${SKEIN_TORCH_LIB_DIR} NO_DEFAULT_PATH)
  target_link_libraries(skein_torch INTERFACE
    -Wl,--push-state,--no-as-needed ${SKEIN_TORCH_CUDA} ${SKEIN_C10_CUDA} -Wl,--pop-state)
  # What torch_cuda itself needs (cublas, cudnn, ...) lies beside it in the wheel and is found through its own rpath.
  target_link_options(skein_torch INTERFACE -Wl,--allow-shlib-undefined)
endif()
target_link_options(skein_torch INTERFACE -Wl,-rpath,${SKEIN_TORCH_LIB_DIR})
add_library(skein::torch ALIAS skein_torch)
message(STATUS "libtorch ${SKEIN_TORCH_VERSION} in ${SKEIN_TORCH_LIB_DIR}$<$<BOOL:${SKEIN_TORCH_CUDA}>:>")

if(SKEIN_PCH)
  file(WRITE ${CMAKE_BINARY_DIR}/torch_pch_anchor.cc "// Owner of the torch side's precompiled header.\n")
  add_library(skein_torch_pch STATIC ${CMAKE_BINARY_DIR}/torch_pch_anchor.cc)
  target_link_libraries(skein_torch_pch PUBLIC skein::torch Threads::Threads)
  target_precompile_headers(skein_torch_pch PRIVATE
    <algorithm> <cstdint> <functional> <map> <memory> <optional> <span> <string> <string_view> <vector>
    <ATen/ATen.h> <torch/csrc/autograd/custom_function.h>)
endif()

function(skein_precompile target)
  if(SKEIN_PCH)
    target_precompile_headers(${target} REUSE_FROM skein_torch_pch)
    # Programs would be compiled with -fPIE, for which a header precompiled with -fPIC does not count.
    get_target_property(type ${target} TYPE)
    target_compile_options(${target} PRIVATE -Winvalid-pch $<$<STREQUAL:${type},EXECUTABLE>:-fPIC>)
  endif()
endfunction()
