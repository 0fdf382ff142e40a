# The CUDA path: the module _cuda, with the CUDA runtime inside and without libtorch.
if(NOT GDCORE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "GDCORE_CUDA: expected AUTO, ON or OFF, got ${GDCORE_CUDA}")
endif()
if(GDCORE_CUDA STREQUAL "OFF")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  # Before, a kernel takes no more than 4 KB of arguments.
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE told)
  string(REGEX MATCH "release ([0-9.]+)" told "${told}")
  if(CMAKE_MATCH_1 VERSION_LESS 12.1)
    set(missing "${CMAKE_CUDA_COMPILER} is of CUDA '${CMAKE_MATCH_1}', and 12.1 or later is needed")
  endif()
else()
  set(missing "no nvcc was found")
endif()
if(DEFINED missing)
  if(GDCORE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GDCORE_CUDA is ON, but ${missing}: put one on PATH, or name it in CUDACXX.")
  endif()
  message(STATUS "gdcore: ${missing}, so no CUDA path")
  return()
endif()

# Machine code for data centres' devices, and PTX of the newest of them for whatever comes after.
set(beside "")
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})  # CMake itself reads it in a new folder only
elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code OUTPUT_VARIABLE known)
  if(known MATCHES "sm_100")
    set(CMAKE_CUDA_ARCHITECTURES 80-real 100)
    # Made of the PTX that 80 has: nothing here asks for more, and a front end that runs for 90 itself, a seventh of the
    # time, writes the same but for the target's name.
    set(beside 90-real)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

pybind11_add_module(_cuda MODULE NO_EXTRAS
  csrc/bindings/layout.cpp
  csrc/cuda/module.cpp
  csrc/cuda/queue.cpp
  csrc/cuda/scratch.cpp)
set_target_properties(_cuda PROPERTIES UNITY_BUILD ${GDCORE_UNITY} UNITY_BUILD_BATCH_SIZE 0)
set(architectures ${CMAKE_CUDA_ARCHITECTURES})
if(beside)
  list(INSERT architectures 1 ${beside})
endif()
list(JOIN architectures ", " architectures)
target_compile_definitions(_cuda PRIVATE GDCORE_CUDA_ARCHITECTURES="${architectures}")
target_link_libraries(_cuda PRIVATE gdcore_options gdcore_cuda CUDA::cudart_static)
install(TARGETS _cuda DESTINATION gdcore)

# One file for each dtype: the kernels are compiled side by side.
add_library(gdcore_cuda OBJECT
  csrc/cuda/bfloat16.cu
  csrc/cuda/float16.cu
  csrc/cuda/float32.cu
  csrc/cuda/float64.cu)
target_include_directories(gdcore_cuda PRIVATE csrc)
target_compile_options(gdcore_cuda PRIVATE
  $<$<BOOL:${beside}>:-gencode=arch=compute_80,code=sm_90>
  # A multiply-add is fused exactly where a kernel says so, as on the CPU.
  -fmad=false
  # What each kernel takes: .ci/kernels.py reads it from the build's output.
  -Xptxas=-v
  -Xcompiler=-fvisibility=hidden,-Wall,-Wextra,-Wconversion,-Wshadow=local)
if(GDCORE_WERROR)
  target_compile_options(gdcore_cuda PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
endif()
set_target_properties(gdcore_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON)
