// Package store keeps what builds read and make, named by content: blobs by the SHA-256 of their bytes, trees by the
// SHA-256 of their NAR, and small records that remember what was found out (which tree a Go module hash unpacks to, which outputs a
// build id has). It is used by builder/source and builder while a build fetches and runs, and by the commands that
// look at, verify and clean a store.
//
// # Promises
//
//   - What an Add or Remember method returned without error is on disk: it survives a kill at any instant and a power cut.
//   - What is visible is complete: an object appears by one rename, after it was hashed, made read-only and synced.
//   - Any number of processes may use one store. Adding the same object twice, at the same time or later, is fine.
//   - GC removes nothing while a Lease is held, in this process or another one.
//   - What a dead process left half done is swept by the next Open or GC; what a live one is doing never is.
//
// The store never fetches, never follows a symbolic link inside a tree, never decides what is trusted, and does not
// re-hash what it hands out: Verify does. Locks are flock(2), so the directory must be on a local file system.
//
// # Layout, version 1
//
//	version                    "arch store 1\n"
//	lock, gate                 empty; flock: shared while used, exclusive for GC; the gate keeps new users out while a GC waits
//	blobs/<hex>                the bytes, 0444; modification time: when it was last added
//	trees/<hex>/tree           a file, directory or link; files 0444 or 0555, directories 0555, every mtime 1
//	trees/<hex>/info           record: size of the NAR; modification time of trees/<hex>: when it was last added
//	records/<kind>/<hex>       a record; <hex> is the SHA-256 of its key
//	roots/<hex>                a record; <hex> is the SHA-256 of the root's name, the value one object digest a line
//	tmp/<random>/              flock: exclusive for the life of the process that writes in it
//	corrupt/<kind>-<hex>-<random>  what Verify moved away
//
// A record is the line "arch record 1", a line with the SHA-256 of everything after it in hexadecimal, a line
// "KIND KEYLENGTH VALUELENGTH" in bytes, the key and the value; nothing else.
package store
