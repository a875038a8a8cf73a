#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	double sum = 0;
	char *p = malloc(argc * 1000);
	for (int i = 1; i < argc * 1000; i++) {
		p[i] = i;
		sum += 1.0 / i;
	}
	printf("hello %f %d\n", sum, p[999]);
	return 0;
}
