/* Prints the time in Unix seconds by every function of the C library that reads it, also in a thread and in a
   child that executes nothing, and waits with a deadline. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *where)
{
	struct timespec ts;
	struct timeval tv;
	time_t t, now = time(&t);

	printf("%s: time: %lld\n", where, (long long)now);
	printf("%s: time by pointer: %lld\n", where, (long long)t);
	gettimeofday(&tv, NULL);
	printf("%s: gettimeofday: %lld\n", where, (long long)tv.tv_sec);
	clock_gettime(CLOCK_REALTIME, &ts);
	printf("%s: clock_gettime: %lld\n", where, (long long)ts.tv_sec);
	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	printf("%s: clock_gettime, coarse: %lld\n", where, (long long)ts.tv_sec);
	clock_gettime(CLOCK_TAI, &ts);
	printf("%s: clock_gettime, atomic: %lld\n", where, (long long)ts.tv_sec);
	if (clock_gettime(CLOCK_REALTIME_ALARM, &ts))
		clock_gettime(CLOCK_REALTIME, &ts); /* a machine without such a device */
	printf("%s: clock_gettime, alarm: %lld\n", where, (long long)ts.tv_sec);
	timespec_get(&ts, TIME_UTC);
	printf("%s: timespec_get: %lld\n", where, (long long)ts.tv_sec);
	fflush(stdout);
}

static void *thread(void *unused)
{
	tell("thread");
	return unused;
}

static const char *outcome(int result)
{
	return result == ETIMEDOUT ? "ETIMEDOUT" : "something else";
}

int main(void)
{
	pthread_t other;
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec soon;
	sem_t sem;

	tell("C");
	pthread_create(&other, NULL, thread, NULL);
	pthread_join(other, NULL);
	if (fork() == 0) {
		tell("fork");
		_exit(0);
	}
	wait(NULL);
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 20000000;
	if (soon.tv_nsec >= 1000000000) {
		soon.tv_nsec -= 1000000000;
		soon.tv_sec++;
	}
	pthread_mutex_lock(&mutex);
	printf("pthread_cond_timedwait: %s\n", outcome(pthread_cond_timedwait(&cond, &mutex, &soon)));
	sem_init(&sem, 0, 0);
	printf("sem_timedwait: %s\n", outcome(sem_timedwait(&sem, &soon) ? errno : 0));
	return 0;
}
