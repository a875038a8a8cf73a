// Shows what a module sees: its arguments, its environment, a clock that stands where the document says, and random
// bytes that follow from the document.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
	unsigned char bytes[8];
	struct timespec now;
	for (int i = 1; i < argc; i++)
		printf("hello, %s\n", argv[i]);
	printf("HOME is %s\n", getenv("HOME") ? getenv("HOME") : "not set");
	if (clock_gettime(CLOCK_REALTIME, &now) != 0 || getentropy(bytes, sizeof bytes) != 0)
		return 1;
	printf("it is %lld\nrandom ", (long long)now.tv_sec);
	for (size_t i = 0; i < sizeof bytes; i++)
		printf("%02x", bytes[i]);
	printf("\n");
	return 0;
}
