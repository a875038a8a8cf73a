// hello says hello by way of wasi-libc's formatted output. Made as tool.wasm is, without -Oz:
//
//   clang-14 --target=wasm32-wasi --sysroot=/usr -O2 -s hello.c -o hello.wasm
#include <stdio.h>

int main(int argc, char **argv) {
  printf("hello from %s, %d, %.3f\n", argv[0], argc, argc / 3.0);
  return 0;
}
