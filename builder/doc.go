// Package builder makes artifacts from Build manifests, bit for bit.
//
// A build has two phases. Fetch: every input is brought into the store and checked against its pin; only here is there a
// network. Build: the steps run in a confinement that holds the listed inputs, each at its place and read-only, two
// private file systems (/build and /tmp) and nothing else: no network, fixed environment, ids, names and clock. What the
// manifest declares as outputs comes back as NAR streams, is put into the store, and is named by its NAR, tar, file and
// OCI digests.
//
// A build is known by its id, the hash of its pinned manifest, its complete dependencies and the version of the
// normaliser. The same id is not built twice unless asked for. With Vary, it is built again in deliberately different
// surroundings, and if the bits differ the guilty factor is named. Rebuild starts from nothing but a receipt.
//
// # Factors
//
// What a second build varies, and what that can show. A factor that could not be varied, because the runner, the manifest
// or the machine does not let it, is recorded in Variation.Missing and never claimed in provenance.
//
//	time      The wall clock goes 400 days and some hours ahead, if the runner says that it can offset the clock. In any
//	          case the second build begins in a later second than the first one ended, so that a stamp of a second or
//	          finer shows; but without the offset time does not count as varied: a date would be the same. File times
//	          within the confinement, the monotonic clock and counters of the processor are never offset.
//	path      /build is elsewhere, in every path of argv, env, dir, mounts and outputs. Paths inside of input files are
//	          not changed: a script that names /build fails in the second build, and path is guilty.
//	uid       Another user and group id. There is no user database in the confinement but what inputs hold.
//	hostname  Another host name. The machine's processor, memory size and kernel version are not hidden, and not varied.
//	locale    LC_ALL and LANG, each unless the manifest fixes it: C becomes C.UTF-8, which need not exist.
//	tz        TZ, unless the manifest fixes it: UTC becomes 5 h 45 min east, in POSIX form, which needs no zone database.
//	umask     0077 in place of 0022.
//	cpus      One CPU in place of all. A machine with one CPU cannot vary it.
//	order     Writable inputs are created in reverse name order, which readdir shows on their file system. Read-only
//	          inputs show the order of the file system of the store, which differs from machine to machine.
//
// If the bits differ, the build is repeated with nothing varied: if they still differ, it is random (or shows the time, if
// all that differs are times). Else each factor is varied alone; if none is guilty alone, the smallest set that is guilty
// together is sought by leaving out one after the other. That costs at most two builds a factor and two more.
//
// # Promises
//
// What is recorded is complete or not there: records, outputs and logs get their names when they are finished, and a
// build that is cancelled leaves nothing. Builds of the same id may run at the same time, in several processes: each has
// its own log and its own record, and the last one to finish is remembered.
//
// The caller holds a store.Lease from before Build or Rebuild until it is done with what they return: else a garbage
// collection may take inputs and outputs away.
//
// The package starts no process itself (runner.Runner does), opens no socket (source.Fetcher does), and holds no key:
// signers are handed in.
package builder
