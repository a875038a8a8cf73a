// Package broker is the privileged half of running jobs: a small server that trusts nobody who talks to it.
//
// An agent that faces the world hands over a signed Job and has it run, but must not be able to make anything else run: it
// may have been taken over. So what a client sends is one DSSE envelope, and bytes that the envelope pins. The
// broker verifies the signatures against its own trust root and the job against its own policy, derives the confinement by
// itself (package job), has a runner.Runner enforce it, and streams back what comes of it. There is no way to send
// a property, a path, a command line, a user or a name.
//
// # Content
//
// A client keeps what it fetched in a store that is its own, and can change it after any check. So the broker opens nothing of
// the client's: it neither takes paths nor descriptors (reading one may block for ever, walking a directory that another
// owns is a race). It asks for what the document pins and it does not have yet, by digest; the client streams the bytes; the
// broker hashes them while it writes them to a cache of its own, and what has another digest is removed. What was received
// once is not asked for again. Only content that a verified document names is ever accepted, and its size is bounded.
//
//	reference           what is asked for
//	url, model, ipfs    the blob of that SHA-256 (ipfs: CIDs of raw blocks)
//	tree, git           the NAR of that SHA-256
//	oci                 the manifest, then the blobs that it names; for runtime wasm that may be a module artifact. As an input, the broker
//	                    makes the root file system of it
//	store               as an image: nothing that the host's own store has, which belongs to root; else the NAR, of that
//	                    SHA-256 or of the one that the host's store vouches for
//	                    as an input: the NAR of that SHA-256
//	go                  the NAR of the module's files, which is compared with the hash of its go.sum line, and must have nothing that this
//	                    hash does not cover; a Go toolchain is refused
//
// # Protocol, version 1
//
// A connection to the Unix stream socket is one job. The kernel tells whose it is (SO_PEERCRED); users who are not
// allowed get a refusal. Both sides send frames: the length of the body in four bytes, big endian, one byte for the kind, the
// body. Bodies of data frames are raw bytes, at most 256 KiB; all others are JSON in canonical form, at most 128 KiB,
// in which nothing is unknown, repeated, or left to interpretation (canonical.Unmarshal).
//
//	client              broker
//	request (Q)                                  the envelope, the name of a detached job, or the wish to watch
//	                    need (N)                 a digest; as often as something is missing
//	data (D)… end (E), or lack (L)               the bytes, or that there are none
//	                    started (S)              the job runs; its name, which the broker made up
//	                    stdout (1), stderr (2)
//	                    output (O), data (D)… end (E)   the NAR of each output, when the job succeeded
//	                    result (R)               the last frame
//	                    refusal (X)              the last frame, at any time: a code, a sentence, a hint
//	end (E)                                      of a detached job: the result has been taken
//	                    job (J)… end (E)         of watching: all detached jobs of the user, and then again and again those that changed
//
// Closing the connection ends the job. Anything that a client sends while its job runs is an error, and ends it, too.
//
// # Detached jobs
//
// A job whose request says so is detached: it goes on when the connection ends. Everything that it says is kept on disk, and
// the same user can attach to it by its name, as often and as many at once as he likes: the frames come again from the first on, and then as they
// are said. What was taken, or is a day old, is forgotten.
//
// A program that drives many jobs needs one connection to watch them all, and a short one for each job to submit it and to take its result:
//
//	Submit   with a Ticket of its own choice, which is written down before. After a crash of either side it submits again: the Ticket finds the job that
//	         was started, and nothing runs twice
//	Watch    tells of every job that runs, what it has used so far, and when it is over. Nothing needs to be polled
//	Attach   follows what a job prints while it runs, if somebody wants to see it, and takes its result when it is over. Keep makes that last
//	         before the broker forgets it
//	Cancel   ends a job
//
// Where the driver's executions outlive their parent (runner/systemd), such a job outlives the end of the broker, also by
// SIGKILL, and nothing of it is lost: what it prints meanwhile (it waits when that is more than 256 KiB), its outputs and its result are held
// in its unit until they are on the broker's disk, the last for an hour. A module does not, but where all that it does is a function of pinned content (clock and randomness
// are not real, no network, no path of the host, no device), it runs again from its start, and says the same. Any other ends with a refusal.
//
// # Promises
//
//   - Nothing runs that a quorum of the policy's issuers did not sign, that the policy does not allow, before its time or after its end.
//   - A document with a nonce runs once, and once more for each of its retries; it needs an end (metadata.expires).
//   - What runs are the bytes that the document pins.
//   - A path of the host that a job may see cannot be made to lead elsewhere: nobody but root can replace a part of it.
//   - All jobs of an owner, and of the node, stay together within what the policy allows them.
//   - A trust root or policy that is older than one that was in force is refused, also after a restart.
//   - Memory is bounded: by the number of connections, and one frame for each. So are jobs, disk and time.
//   - Every refusal has a Code, which a program can act on.
//
// The broker never fetches, never signs, holds no key, and needs no capability: being uid 0 on the system bus is enough.
package broker
