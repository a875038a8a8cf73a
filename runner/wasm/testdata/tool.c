// tool does one thing after another, each named by an argument, and says what came of it.
//
//   clang-14 --target=wasm32-wasi --sysroot=/usr -Oz -s tool.c -o tool.wasm
//
// (Debian 12: clang-14, lld-14, wasi-libc 0.0~git20221206, libclang-rt-14-dev-wasm32)
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what) {
  printf("%s: errno %d\n", what, errno);
  return 0;
}

// words counts the words of a file and writes their number to another.
static int words(const char *in, const char *out) {
  FILE *f = fopen(in, "r");
  if (!f) return fail(in);
  char word[4096];
  long n = 0;
  while (fscanf(f, "%4095s", word) == 1) n++;
  fclose(f);
  FILE *o = fopen(out, "w");
  if (!o) return fail(out);
  fprintf(o, "%ld\n", n);
  return fclose(o);
}

static int list(const char *path) {
  DIR *d = opendir(path);
  if (!d) return fail(path);
  for (struct dirent *e; (e = readdir(d));)
    printf("%s %d\n", e->d_name, e->d_type == DT_DIR);
  return closedir(d);
}

static int show(const char *path) {
  char b[65536];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return fail(path);
  for (ssize_t n; (n = read(fd, b, sizeof b)) > 0;) fwrite(b, 1, n, stdout);
  return close(fd);
}

static int put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (fd < 0) return fail(path);
  if (write(fd, text, strlen(text)) < 0) fail("write");
  return close(fd);
}

static void hex(void) {
  unsigned char b[8];
  getentropy(b, sizeof b);
  for (unsigned i = 0; i < sizeof b; i++) printf("%02x", b[i]);
  printf("\n");
}

static int deep(int n) {
  volatile char b[1024];
  b[0] = n;
  return deep(n + 1) + b[0];
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    struct stat st;
    if (!strcmp(a, "words")) words(argv[i + 1], argv[i + 2]), i += 2;
    else if (!strcmp(a, "list")) list(argv[++i]);
    else if (!strcmp(a, "show")) show(argv[++i]);
    else if (!strcmp(a, "put")) put(argv[i + 1], argv[i + 2]), i += 2;
    else if (!strcmp(a, "mkdir")) { if (mkdir(argv[++i], 0777)) fail("mkdir"); }
    else if (!strcmp(a, "rmdir")) { if (rmdir(argv[++i])) fail("rmdir"); }
    else if (!strcmp(a, "unlink")) { if (unlink(argv[++i])) fail("unlink"); }
    else if (!strcmp(a, "rename")) { if (rename(argv[i + 1], argv[i + 2])) fail("rename"); i += 2; }
    else if (!strcmp(a, "symlink")) { if (symlink(argv[i + 1], argv[i + 2])) fail("symlink"); i += 2; }
    else if (!strcmp(a, "size")) { if (stat(argv[++i], &st)) fail("stat"); else printf("%lld %d\n", (long long)st.st_size, S_ISDIR(st.st_mode)); }
    else if (!strcmp(a, "env")) for (char **e = environ; *e; e++) printf("%s\n", *e);
    else if (!strcmp(a, "time")) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); printf("%lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec); }
    else if (!strcmp(a, "sleep")) sleep(atoi(argv[++i]));
    else if (!strcmp(a, "random")) hex();
    else if (!strcmp(a, "echo")) printf("%s\n", argv[++i]);
    else if (!strcmp(a, "warn")) fprintf(stderr, "%s\n", argv[++i]);
    else if (!strcmp(a, "exit")) exit(atoi(argv[++i]));
    else if (!strcmp(a, "abort")) abort();
    else if (!strcmp(a, "loop")) for (volatile long n = 0;; n++);
    else if (!strcmp(a, "deep")) return deep(0);
    else if (!strcmp(a, "eat")) { long n = 0; for (char *volatile p; (p = malloc(1 << 20));) n++; printf("%ld MiB\n", n); }
    else if (!strcmp(a, "flood")) for (;;) puts("flood flood flood flood flood flood flood flood flood flood flood");
    else printf("unknown %s\n", a);
    fflush(stdout);
  }
  return 0;
}
