package diff

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// Cause is a class of causes of a difference.
type Cause string

// The causes. Each says what the evidence is.
const (
	Mtime      Cause = "mtime"                // a modification time in an archive or of a file
	Owner      Cause = "owner"                // a user or group in an archive or of a file
	Mode       Cause = "mode"                 // permissions in an archive or of a file
	Order      Cause = "order"                // the same members, lines or keys in another order
	Path       Cause = "path"                 // text that differs only in names of files, such as a build directory
	BuildID    Cause = "build-id"             // the build id of a linker, of Go, or of a WebAssembly module
	Timestamp  Cause = "timestamp-in-content" // content that differs only in dates or times
	Compressor Cause = "compressor"           // the same content, packed in other bytes
	Randomness Cause = "randomness"           // content that differs only in what looks random: UUIDs, hashes, salts
	Content    Cause = "content"              // content that differs, with no evidence of a cause
	Missing    Cause = "missing"              // one side does not have it
	Type       Cause = "type"                 // a file on one side, a directory or link on the other
	Target     Cause = "symlink-target"       // links to different places
)

// Report is the result of a comparison. Its JSON form is stable: fields are added, never changed.
type Report struct {
	Version int    `json:"version"` // of this form: 1
	A       string `json:"a"`       // the paths as they were given
	B       string `json:"b"`
	Equal   bool   `json:"equal"`
	Files   int    `json:"files"` // files on both sides that were compared; 1 for two files
	Bytes   int64  `json:"bytes"` // their size on side A

	// Total counts the differences that were found. Differences has the first Options.Differences of them, in the order of paths.
	Total       int          `json:"total"`
	Differences []Difference `json:"differences"`
	Causes      []CauseCount `json:"causes"` // of all that were found, most frequent first
	Notes       []string     `json:"notes"`  // what was not looked into, and why
}

// CauseCount says how many differences have a cause.
type CauseCount struct {
	Cause Cause `json:"cause"`
	Count int   `json:"count"`
}

// Difference is one difference.
type Difference struct {
	Path     string   `json:"path"`    // of the file relative to both trees, slash-separated; "" if two files are compared, or the trees' roots
	Members  []string `json:"members"` // the way into it, outermost first: members of archives, sections
	Cause    Cause    `json:"cause"`
	Sentence string   `json:"sentence"` // for a person; untrusted parts are quoted

	// Offset is that of the first differing byte in the innermost member, Count how many bytes differ, including those that only one side has.
	// Offset is -1 if the difference is not one of bytes.
	Offset int64 `json:"offset"`
	Count  int64 `json:"count"`
	SizeA  int64 `json:"sizeA"` // bytes of the innermost member; -1: has none
	SizeB  int64 `json:"sizeB"`

	ValueA string `json:"valueA,omitempty"` // what differs, such as two times; untrusted, at most 256 bytes
	ValueB string `json:"valueB,omitempty"`

	ExcerptA *Excerpt `json:"excerptA,omitempty"` // the bytes around Offset
	ExcerptB *Excerpt `json:"excerptB,omitempty"`
}

// Excerpt is a piece of content.
type Excerpt struct {
	Offset int64  `json:"offset"` // of its first byte, a multiple of 16
	Bytes  []byte `json:"bytes"`  // base64 in JSON
}

// JSON writes the report as one indented JSON object and a newline.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// place is where in the two inputs a difference is.
type place struct {
	path    string
	members []string
}

// in returns the place of something inside p.
func (p place) in(member string) place {
	return place{path: p.path, members: append(slices.Clip(p.members), member)}
}

// last is the innermost name.
func (p place) last() string {
	if len(p.members) > 0 {
		return p.members[len(p.members)-1]
	}
	return p.path
}

// countCauses counts causes, most frequent first, then by name.
func countCauses(counts map[Cause]int) []CauseCount {
	list := []CauseCount{}
	for cause, count := range counts {
		list = append(list, CauseCount{cause, count})
	}
	slices.SortFunc(list, func(a, b CauseCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Cause), string(b.Cause)))
	})
	return list
}
