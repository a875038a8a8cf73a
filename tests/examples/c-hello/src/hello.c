#include <stdio.h>

int main(void)
{
	printf("hello from %s, line %d, compiled by gcc %s\n", __FILE__, __LINE__, __VERSION__);
	return 0;
}
