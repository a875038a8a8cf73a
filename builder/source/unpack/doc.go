// Package unpack turns archives of strangers into trees: tar (plain, gzip, bzip2, xz, zstd), zip, Debian packages and
// the layers of OCI images. A fetcher calls it on bytes whose hash it has checked, and puts the tree into the store.
//
// It promises, whatever the archive holds: nothing outside of the tree's directory is created, changed, linked or
// read; no device, FIFO, socket, setuid bit, owner or extended attribute comes into being; files have mode 0644 or
// 0755, directories 0755; and no more bytes, files, depth or name length than Limits allow are made. On an error the
// directory may hold a part of the archive; throwing it away is the caller's act.
//
// Every path is resolved in a model of the tree that starts empty, so a symbolic link that an archive brought is never
// followed by the kernel; and every system call goes through an [os.Root], so that a wrong model could still not leave
// the directory.
//
// It never looks at times (the store sets them) and never runs anything.
package unpack

import "fmt"

// Limits bound what an archive may become. A zero field means its default.
type Limits struct {
	Bytes int64 // sum of the sizes of all files, a hard link counting as a file; default 16 GiB
	Files int   // entries, of all kinds; default 1,048,576
	// Ratio is how many bytes may come out for each byte that went in, once more than Slack bytes came out.
	// Deflate reaches 1032:1 on zeros; real source archives stay below 30:1. Default 200.
	Ratio int64
	Slack int64 // default 64 MiB
	Name  int   // bytes of one path element; default 255 (NAME_MAX)
	Path  int   // bytes of a path or of a symbolic link's target; default 4095 (PATH_MAX)
	Depth int   // path elements; default 256, which is what a NAR may have
}

func (l Limits) withDefaults() Limits {
	fill(&l.Bytes, 16<<30)
	fill(&l.Files, 1<<20)
	fill(&l.Ratio, 200)
	fill(&l.Slack, 64<<20)
	fill(&l.Name, 255)
	fill(&l.Path, 4095)
	fill(&l.Depth, 256)
	return l
}

func fill[T int | int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// EntryError says which entry of an archive was refused, and why.
type EntryError struct {
	Name   string // as the archive spells it
	Reason string
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("archive entry %q: %s", clip(e.Name), e.Reason)
}

// LimitError says that an archive would become larger than allowed.
type LimitError struct {
	What string // such as "bytes"
	Max  int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("archive exceeds the limit of %d %s", e.Max, e.What)
}

// Hint tells the way out.
func (e *LimitError) Hint() string {
	return "an archive like this is most likely made to fill disks; unpack and inspect it elsewhere, and pin its tree by NAR hash instead"
}

// clip bounds what an error repeats of a stranger's text.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
