package diff

import (
	"runtime"

	"arch.network/attest/digest/nar"
)

// Options bound a comparison and say how exact it is. Zero fields mean the default.
type Options struct {
	// Metadata also compares all permission bits, owners and modification times of files on disk. Without it only what a
	// NAR keeps counts: type, content, executable bit, link target. In archives these things are content and always count.
	Metadata bool

	// ListingA and ListingB, if both are given, are the listings of the trees a and b with the digest of each file: files with equal digests are not
	// read. The caller vouches that they are of these trees.
	ListingA, ListingB nar.Listing

	Differences int    // differences that are listed and explained; more are only counted; default 1,000
	Depth       int    // archives in archives that are opened; default 8
	Unpacked    int64  // bytes unpacked from one pair of files on both sides together; default 8 GiB
	Ratio       int64  // unpacked bytes a packed byte, once 64 MiB are unpacked; default 1,000
	Members     int    // members of one archive; default 1,000,000
	Parallel    int    // files compared at a time; default: the number of CPUs
	TempDir     string // for unpacked content over 16 MiB, without a name; default: os.TempDir
}

func (o Options) withDefaults() Options {
	if o.Differences <= 0 {
		o.Differences = 1000
	}
	if o.Depth <= 0 {
		o.Depth = 8
	}
	if o.Unpacked <= 0 {
		o.Unpacked = 8 << 30
	}
	if o.Ratio <= 0 {
		o.Ratio = 1000
	}
	if o.Members <= 0 {
		o.Members = 1_000_000
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	return o
}

// Limits that no option changes.
const (
	ratioFrom   = 64 << 20  // unpacked bytes from which Ratio counts; small things that compress well are harmless
	inMemory    = 16 << 20  // unpacked bytes of one member that are kept in memory
	maxText     = 16 << 20  // bytes of a text whose lines are compared, and of a binary whose strings are
	maxRuns     = 10_000    // differing places of one content that are looked at
	maxEvidence = 2 << 20   // bytes of differing text of one content that are searched for dates, paths and the like
	maxValue    = 256       // bytes of Difference.ValueA and B
	maxTree     = 256       // directories in directories
	maxWindow   = 128 << 20 // bytes of the window of a zstd or xz stream, zstd's --long=27
	excerptSize = 64        // bytes of an excerpt
)
