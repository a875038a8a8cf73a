// Builds a tree recursively, writes of it, and reads the clock and randomness, so that its state is in memory, on the call
// stack, in descriptors and in the host.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct node {
	struct node *left, *right;
	double weight;
};

static FILE *out;
static unsigned long made;

static struct node *build(int depth, double weight) {
	struct node *n = malloc(sizeof *n);
	if (!n)
		abort();
	n->weight = weight;
	n->left = depth ? build(depth - 1, weight * 0.5 + depth) : NULL;
	if (++made % 1000 == 0) {
		struct timespec now;
		unsigned char random[4];
		clock_gettime(CLOCK_REALTIME, &now);
		getentropy(random, sizeof random);
		fprintf(out, "%lu %ld.%09ld %02x%02x%02x%02x\n", made, (long)now.tv_sec, now.tv_nsec, random[0], random[1], random[2], random[3]);
		fflush(out);
		printf("%lu\n", made);
		fflush(stdout);
	}
	n->right = depth ? build(depth - 1, weight * 0.25 - depth) : NULL;
	return n;
}

static double sum(struct node *n) { return n ? n->weight + sum(n->left) - sum(n->right) : 0; }

int main(int argc, char **argv) {
	out = fopen("/outputs/tree", "w");
	if (!out)
		return 3;
	struct node *root = build(12, 1);
	printf("%.17g\n", sum(root));
	fclose(out);
	return argc > 1 ? 0 : 5;
}
