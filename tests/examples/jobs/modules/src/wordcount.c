// Counts how often each word occurs in the file /inputs/text, and leaves the counts, the most frequent first, at /outputs/counts.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct word {
	char *text;
	unsigned count;
};

static int order(const void *a, const void *b) {
	const struct word *x = a, *y = b;
	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return strcmp(x->text, y->text);
}

static void fail(const char *what) {
	perror(what);
	exit(1);
}

int main(void) {
	FILE *in = fopen("/inputs/text", "r"), *out;
	struct word *words = NULL;
	size_t n = 0, room = 0, length = 0;
	char text[256];
	unsigned long all = 0;
	if (!in)
		fail("/inputs/text");
	for (int c = 0; c != EOF;) {
		c = getc(in);
		if (c != EOF && isalpha(c)) {
			if (length + 1 < sizeof text)
				text[length++] = tolower(c);
			continue;
		}
		if (length == 0)
			continue;
		text[length] = 0;
		length = 0;
		all++;
		size_t i = 0;
		while (i < n && strcmp(words[i].text, text) != 0)
			i++;
		if (i == n) {
			if (n == room && !(words = realloc(words, (room = 2 * room + 64) * sizeof *words)))
				fail("words");
			if (!(words[n].text = strdup(text)))
				fail("words");
			words[n++].count = 0;
		}
		words[i].count++;
	}
	if (ferror(in))
		fail("/inputs/text");
	qsort(words, n, sizeof *words, order);
	if (!(out = fopen("/outputs/counts", "w")))
		fail("/outputs/counts");
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%u %s\n", words[i].count, words[i].text);
	if (fclose(out) != 0)
		fail("/outputs/counts");
	printf("%lu words, %zu different\n", all, n);
	return 0;
}
