// Package oci makes container images ready to be run: it turns an image, given by digest and handed in as blobs, into a root file system
// that a runner can mount, and the image's configuration into a runner.Spec.
//
// # Images
//
// A Cache keeps what images become. Each layer is unpacked once, under the SHA-256 of its uncompressed tar (its diffID), by package
// unpack: see there for what a hostile layer cannot do. The root file system of an image is put together from its layers by hard links, whiteouts
// applied, under the image's chain id (image-spec config.md, "Layer ChainID"). Nothing is mounted: a root is a directory that a
// runner binds read-only at "/", so it works without privileges. Files have mode 0644 or 0755, directories 0755; there are no owners,
// set-id bits, devices, extended attributes or times of the image. Where it lacks them, it has the empty directories dev, inputs, outputs,
// proc and tmp, to mount on.
//
// Every blob is hashed before any of it is parsed or decompressed, wherever it comes from; the uncompressed bytes of each layer are compared with the
// configuration. An image for another platform than the one that was asked for is refused, also when the digest names it.
//
// # What is checked again
//
// A layer or root that is there already is used as it is if it was checked since the machine was started and not longer ago than
// Options.Recheck. Else all of it is read and compared with the hashes that were taken when it was made. So what a power cut or a failing disk
// left is found, thrown away and made anew, and starting a job costs no reading of the image. Whoever can write to the cache can
// change what runs: it belongs to one user, and one that others may write to is refused.
//
// Every change appears by one rename, and any number of processes may use one cache. What a dead one left half done is swept by
// the next Open.
//
// # Layout of a cache, version 1
//
//	version                     "arch images 1\n"
//	locks/KIND-HH               empty; flock: exclusive while an object whose name begins with HH is made
//	layers/HEX                  flock: shared while it is read, exclusive while it is removed; roots likewise
//	layers/HEX/index            the steps of a layer: see index.go
//	layers/HEX/files/N/M        the content of its file number 1024·N+M, counted from 0
//	layers/HEX/seal             hash of the index, and when the object was checked last
//	roots/HEX/index             the entries of the root, in the order of a walk
//	roots/HEX/root              the root file system
//	roots/HEX/seal              as above
//	tmp/RANDOM, tmp/RANDOM.lock flock: exclusive for the life of the process that writes in it
//
// # Running
//
// Spec is a pure function of a Root and what a job adds. It documents how each field of the configuration is honoured.
//
// The package never fetches, never mounts, never runs anything, and never follows a symbolic link of an image out of its root.
package oci
